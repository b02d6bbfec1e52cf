"""Linux boots in our virtual machines: on both interrupt controllers, with one, two and four vCPUs; console both
ways, reboot and power-off from inside. (The power button: test_process.py and test_debian.py.)"""

from lab import GICV2, GICV3, Lab, command_line, expect, spec

lab = Lab("boot", guests=("kernel", "tiny", "talk"), options=("--cores", "2"),
          variants={"GICv2": GICV2, "GICv3": GICV3})


@lab.check("one, two and four vCPUs come up; the guest powers off", """
    for n in 1 2 4; do witness-vm run spec.json vcpus=$n </dev/null; echo ENDED $?; done
""", limit=240, files={"spec.json": spec("cpus", "vectors=2", "clock", "random", "hwrng=32", "poweroff")})
def _(result):
    expect([said["online"] for said in result.words("cpus")] == ["1", "2", "4"], "the guests see their vCPUs")
    expect(result.count("^ENDED 0$") == 3, "power-off ends the process with 0")
    for word in ("vectors", "clock", "random", "hwrng"):
        expect(len(result.words(word)) == 3, f"{word} in each")


@lab.check("console both ways; a reboot from inside comes up again", """
    talk -l 120 witness-vm run spec.json <<END
< GUEST-READY
> echo=typed
< RESULT echo ok text=typed
> reboot
< GUEST-READY
> poweroff
END
    echo ENDED $?
""", limit=240, files={"spec.json": spec()})
def _(result):
    expect(result.count("^GUEST-INIT") == 2, "it was up twice")
    result.expect_line("^ENDED 0$")


@lab.check("the UART as the console: both ways", """
    talk -l 120 witness-vm run spec.json <<END
< GUEST-READY
> echo=typed
< RESULT echo ok text=typed
> poweroff
END
    echo ENDED $?
""", variant="GICv2", files={"spec.json": spec(commandLine=command_line(console="ttyAMA0"))})
def _(result):
    result.expect_line("^ENDED 0$")


@lab.check("a reboot may end the process instead, and a panic says so", f"""
    witness-vm run spec.json 'commandLine={command_line("reboot")}' onReset=exit </dev/null; echo REBOOTED $?
    witness-vm run spec.json 'commandLine={command_line("panic", more="panic=-1")}' onReset=exit </dev/null; echo PANICKED $?
""", variant="GICv2", files={"spec.json": spec()})
def _(result):
    result.expect_order("^REBOOTED 4$", "^PANICKED 4$")


lab.main()

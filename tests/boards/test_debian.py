"""A Debian in our virtual machine: systemd from virtio-blk, a login, files synced, and the power button."""

from lab import Lab, expect, spec

lab = Lab("debian", guests=("kernel", "tiny", "root", "talk"), options=("--cores", "2", "--memory", "1500"), slack=120)


@lab.check("Debian boots to a login prompt; the power button shuts it down; what was synced is there", """
    talk -l 600 witness-vm run spec.json >said <<END &
< login:
> root
< #
> cat /proc/1/comm; echo kept >/file; sync; echo SYN$((0))CED
< SYN0CED
END
    until grep -q "^SYN0CED" said; do sleep 1; done
    witness-vm button /tmp/debian.sock
    wait $!
    echo ENDED $?
    cat said
    echo
    mkdir root; mount -o ro /dev/root root; echo FILE $(cat root/file)
""", limit=1200, files={"spec.json": spec("root=/dev/vda", name="debian", disks=[{"path": "/dev/root"}], memoryMib=384,
                                          vcpus=2, control="/tmp/debian.sock")})
def _(result):
    result.expect_order("^ENDED 0$", "login:", "^systemd", "^SYN0CED")
    expect(result.count("^FILE kept$") == 1, "the file is on the disk")


lab.main()

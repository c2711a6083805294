#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Follows running bare guests: bare-track.py GUEST DIRECTORY

Written pages, memory that comes when it is touched, vCPUs that are slowed down.
"""

import ctypes
import fcntl
import os
import select
import struct
import threading
import time

from bare_machine import GUEST, Machine, incoming, refused
from vmm_bitmap import Bitmap, PAGE
from vmm_client import Refused, Vmm, available, copy_memory, memfd


def follow(words, *args):
    """Copies the memory of a running guest, again what it writes, at last the rest of it."""
    m = Machine("-k", GUEST, "-a", words, *args)
    m.wait_rounds(2)
    source, layout = m.control.memory()
    pages = layout["size"] // PAGE
    bitmap = Bitmap(layout["size"])
    assert m.control.ask("dirty-start", fd=bitmap.fd)["pages"] == pages
    new = incoming(*args)
    target, _ = new.control.memory()
    m.control.ask("dirty-collect")
    assert len(bitmap.take()) == pages, "at first all pages count"
    copy_memory(source, target)
    sent = []
    for i in range(4):
        if i == 3:
            m.control.ask("pause")
            m.control.ask("save", fd=(blob := memfd()))
        else:
            m.wait_rounds(2)
        counted = m.control.ask("dirty-collect")["pages"]
        dirty = bitmap.take()
        assert counted == len(dirty), f"{counted}, {len(dirty)}"
        for page in dirty:
            os.pwrite(target, os.pread(source, PAGE, page * PAGE), page * PAGE)
        sent.append(len(dirty))
    assert m.control.ask("dirty-collect")["pages"] == 0, "a paused machine writes"
    m.control.ask("dirty-stop")
    m.stop()
    new.control.ask("load", fd=blob, clock="elapsed")
    new.control.ask("resume")
    new.wait_rounds(3)
    new.stop()
    print(f"followed {words} {' '.join(args)}: {sent} pages")


def ranges():
    """Parts of the memory, and requests that make no sense."""
    m = Machine("-k", GUEST, "-a", "dirty=8", "-m", "64")
    m.wait_rounds(2)
    size = 64 << 20
    good = Bitmap(size)
    refused(m, "dirty-start", "no descriptor")
    refused(m, "dirty-start", "sealed", fd=memfd(size=good.bytes))
    refused(m, "dirty-start", "bytes, not 2048", fd=memfd(size=1024, seal=True))
    refused(m, "dirty-collect", "not tracked")
    m.control.ask("dirty-start", fd=good.fd)
    refused(m, "dirty-start", "tracked already", fd=good.fd)
    for first, pages in ((1, 64), (0, 63), (0, 1 << 40), (1 << 40, 64), (16384, 64), (-1, 64)):
        refused(m, "dirty-collect", "page", first_page=first, pages=pages)
    m.control.ask("dirty-collect")
    good.take()
    m.wait_rounds(2)
    # The guest writes pages 4096 to 6143.
    assert m.control.ask("dirty-collect", first_page=4096, pages=1024)["pages"] == 1024
    assert good.take() == list(range(4096, 5120))
    assert m.control.ask("dirty-collect", first_page=5120, pages=1024)["pages"] == 1024
    assert good.take() == list(range(5120, 6144))
    # A connection that is gone takes its tracking along.
    other = Vmm(m.path)
    m.control.ask("dirty-stop")
    other.ask("dirty-start", fd=good.fd)
    other.ask("throttle", vcpus=[50])
    other.close()
    for _ in range(100):
        try:
            m.control.ask("dirty-start", fd=good.fd)
            break
        except Refused:
            time.sleep(0.02)
    m.control.ask("dirty-stop")
    m.control.ask("dirty-stop")
    m.wait_rounds(2)
    m.stop()


class Pages(threading.Thread):
    """Serves the faults of a machine from another memory."""
    COPY = 0xc028aa03
    WRITEPROTECT = 0xc018aa06

    def __init__(self, uffd, regions, source):
        super().__init__(daemon=True)
        self.uffd, self.regions, self.source = uffd, regions, source
        self.page = ctypes.create_string_buffer(PAGE)
        self.served = 0
        self.limit = None
        self.end = False

    def give(self, region, offset):
        ctypes.memmove(self.page, os.pread(self.source, PAGE, region["offset"] + offset), PAGE)
        arg = struct.pack("QQQQq", region["host"] + offset, ctypes.addressof(self.page), PAGE, 0, 0)
        try:
            fcntl.ioctl(self.uffd, self.COPY, arg)
            self.served += 1
        except FileExistsError:
            pass

    def fault(self, address):
        for region in self.regions:
            offset = (address - region["host"]) & ~(PAGE - 1)
            if 0 <= offset < region["size"]:
                self.give(region, offset)

    def run(self):
        while not self.end and (self.limit is None or self.served < self.limit):
            if not select.select([self.uffd], [], [], 0.05)[0]:
                continue
            message = os.read(self.uffd, 32)
            assert message[0] == 0x12
            self.fault(struct.unpack_from("Q", message, 16)[0])


def taken_over(machine, pages):
    """The faults of a machine whose mover is gone, in the hands of another; None: there is none."""
    other = Vmm(machine.path + ".faults")
    result = other.ask("userfault-take")
    uffd = other.fds.pop(0)
    fd, layout = other.memory()
    assert layout["size"] == os.fstat(fd).st_size
    os.close(fd)
    assert result["regions"] == pages.regions
    again = Pages(uffd, result["regions"], pages.source)
    again.start()
    return other, again


def busy(machine, command, **args):
    """What somebody else hears at the socket of the faults."""
    visitor = Vmm(machine.path + ".faults")
    try:
        visitor.ask(command, **args)
        raise AssertionError(f"{command} was not refused")
    except Refused as e:
        return e.errno
    finally:
        visitor.close()


def held(new, mover, pages):
    """The mover goes; the guest waits in its faults until another comes."""
    assert busy(new, "userfault-take") == 16 and busy(new, "status") == 16
    pages.join()
    os.close(pages.uffd)
    mover.close()
    time.sleep(0.1)
    before = new.rounds()
    time.sleep(0.3)
    assert new.rounds() == before and new.process.poll() is None, new.output()
    mover, pages = taken_over(new, pages)
    assert busy(new, "userfault-take") == 16
    new.wait_rounds(2)
    assert "waits 20 s for another" in new.output()
    return mover, pages


def lost(new, mover, pages, hold, ended):
    """Nobody brings the memory, or somebody says that it will not come."""
    if hold and ended:
        # Who may not see an answer: the VM is gone.
        assert busy(new, "userfault-end", reason="the disk is broken") == 32
    mover.close()
    assert new.process.wait(20) == 14
    why = ("the disk is broken" if ended else "nobody brings the rest" if hold
           else "before all of it was there")
    assert why in new.output(), new.output()
    assert not os.path.exists(new.path + ".faults")
    pages.end = True


def lazy(finish, hold, *args, again=False, ended=False):
    """The guest runs before its memory is there."""
    m = Machine("-k", GUEST, "-a", "work=0x10000", *args)
    m.wait_rounds(2)
    m.control.ask("pause")
    m.control.ask("save", fd=(blob := memfd()))
    source, layout = m.control.memory()
    new = incoming(*args)
    mover = Vmm(new.path)
    refused(new, "userfault", "modes", modes=["all"])
    refused(new, "userfault", "hold_ms", modes=["missing"], hold_ms=-1)
    refused(new, "userfault", "hold_ms", modes=["missing"], hold_ms=1 << 40)
    try:
        result = mover.ask("userfault", modes=["missing"], hold_ms=hold)
    except Refused as e:
        assert "/dev/userfaultfd" in str(e) or "kernel" in str(e), str(e)
        print(f"left out: {e}")
        new.stop()
        m.stop()
        return
    assert len(result["threads"]) == 1 and result["threads"][0] > 0
    pages = Pages(mover.fds.pop(0), result["regions"], source)
    pages.start()
    refused(new, "userfault", "served already", modes=["missing"])
    new.control.ask("load", fd=blob, clock="frozen")
    refused(new, "save", "not all come", fd=memfd())
    refused(new, "dirty-start", "not all come", fd=memfd(size=8 * 256, seal=True))
    if again:
        pages.limit = pages.served + 100
    new.control.ask("resume")
    if again:
        mover, pages = held(new, mover, pages)
    new.wait_rounds(3)
    assert 0 < pages.served < layout["size"] // PAGE
    if not finish:
        lost(new, mover, pages, hold, ended)
        m.stop()
        return
    for region in result["regions"]:
        for offset in range(0, region["size"], PAGE):
            pages.give(region, offset)
    mover.ask("userfault-stop") if not again else new.control.ask("userfault-stop")
    assert not os.path.exists(new.path + ".faults")
    pages.end = True
    pages.join()
    os.close(pages.uffd)
    mover.close()
    new.wait_rounds(3)
    new.stop()
    m.stop()
    print(f"{pages.served} pages came when they were needed")


def protected():
    """Writes wait for who protected the pages; when he is gone they go on."""
    m = Machine("-k", GUEST, "-a", "dirty=2", "-m", "64")
    m.wait_rounds(2)
    mover = Vmm(m.path)
    try:
        regions = mover.ask("userfault", modes=["wp"])["regions"]
    except Refused as e:
        print(f"left out: {e}")
        m.stop()
        return
    uffd = mover.fds.pop(0)
    page = regions[0]["host"] + (16 << 20)
    fcntl.ioctl(uffd, Pages.WRITEPROTECT, struct.pack("QQQ", page, PAGE, 1))
    assert select.select([uffd], [], [], 20)[0], "no fault"
    message = os.read(uffd, 32)
    assert message[0] == 0x12 and struct.unpack_from("Q", message, 16)[0] & -PAGE == page
    before = m.rounds()
    time.sleep(0.2)
    assert m.rounds() == before, "wrote to a protected page"
    fcntl.ioctl(uffd, Pages.WRITEPROTECT, struct.pack("QQQ", page, PAGE, 0))
    m.wait_rounds(2)
    fcntl.ioctl(uffd, Pages.WRITEPROTECT, struct.pack("QQQ", page, PAGE, 1))
    assert select.select([uffd], [], [], 20)[0], "no fault"
    mover.close()
    os.close(uffd)
    m.wait_rounds(2)
    m.stop()
    print("protected pages")


def slow():
    """A vCPU that is throttled gets as much less done."""
    m = Machine("-k", GUEST, "-a", "dirty=2", "-m", "64", "-c", "2")

    def rate():
        begin = m.rounds()
        time.sleep(1)
        return m.rounds() - begin
    refused(m, "throttle", "2 numbers", vcpus=[1])
    refused(m, "throttle", "percent", vcpus=[100, 0])
    m.wait_rounds(2)
    # Others' load looks the same for a while, not five times.
    for _ in range(5):
        full = rate()
        m.control.ask("throttle", vcpus=[90, 0])
        less = rate()
        m.control.ask("pause")
        m.control.ask("resume")
        m.wait_rounds(1)
        m.control.ask("throttle", vcpus=[0, 0])
        again = rate()
        if less < full / 2 < again * 2:
            break
    else:
        raise AssertionError(f"{full} rounds a second, {less} throttled, then {again}")
    m.stop()
    print(f"{full} rounds a second, {less} throttled")


def mappings(control):
    return control.ask("stats").get("mappings", {}).get("pages_2m", 0)


def huge(*args):
    """Who follows has KVM map small pages; when he is gone, however, they are large again."""
    with open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", encoding="ascii") as f:
        if int(f.read()) < 32:
            print("left out: huge pages (32 of 2 MiB are not free)")
            return
    m = Machine("-k", GUEST, "-a", "fill=4096 work=4096", *args, "--page-size", "2M")
    m.wait_rounds(2)
    stats = m.control.ask("stats")
    assert ("mappings" in stats) == ("faults" in stats["vcpu_exits"][0]), stats
    before = mappings(m.control)
    if not before:
        m.stop()
        print("left out: KVM does not map this guest by huge pages, or does not tell")
        return
    for how in "stopped", "hung up":
        follower = Vmm(m.path)
        bitmap = Bitmap(64 << 20)
        follower.ask("dirty-start", fd=bitmap.fd)
        follower.ask("dirty-collect")
        m.wait_rounds(2)
        during = mappings(m.control)
        assert during <= before / 2, (how, before, during)
        if how == "stopped":
            follower.ask("dirty-stop")
        follower.close()
        for _ in range(200):
            after = mappings(m.control)
            if after >= before:
                break
            time.sleep(0.05)
        assert after >= before, (how, before, during, after)
        print(f"{before} huge mappings, {during} while followed, {after} when that was {how}")
    m.stop()


follow("dirty=8", "-m", "64", "-c", "2")
follow("work=0x1000", "-m", "64", "--irqchip", "split")
if available(14000):
    follow("work=0x100000", "-m", "6144")
ranges()
lazy(True, 0, "-m", "64")
lazy(True, 20000, "-m", "64")
lazy(True, 20000, "-m", "64", again=True)
lazy(False, 0, "-m", "64")
lazy(False, 300, "-m", "64")
lazy(False, 20000, "-m", "64", ended=True)
protected()
slow()
huge("-m", "64")

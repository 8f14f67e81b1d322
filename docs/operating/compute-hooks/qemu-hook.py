#!/usr/bin/env -S python3 -I -S
"""A compute hook that runs guests with QEMU, to be read and changed. The contract is in ../compute-hooks.md.

Each call is a process of its own: PROGRAM VERB SERVER MARK, a question as JSON on standard input. What must be remembered between
calls lies in the server's folder:

    qmp.sock     QEMU's command socket          console.log    what the guest wrote to its serial console
    guest.log    what QEMU said                 exit           how QEMU ended; not there while it runs
    releasing    one volume per line that the guest was asked to give back

QEMU runs in a session of its own, so that it survives this process and the agent. Its NICs are plugged into nothing: put your own network
where it says so.
"""
import fcntl
import glob
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

PORTS = 16


class Failed(Exception):
    """Its text is the reason that the agent shows."""


class Qmp:
    """One conversation with QEMU. Only one at a time is answered, which the lock of the folder sees to."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect("qmp.sock")
        self.lines = self.socket.makefile("rw")
        json.loads(self.lines.readline())
        self.ask("qmp_capabilities")

    def ask(self, execute, **arguments):
        self.lines.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            line = self.lines.readline()
            if line == "":
                raise Failed("QEMU ended")
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]


def qemu_pid(ask):
    """The process that runs this guest, or None. A pid alone may be somebody else's by now: the pid file must be in its arguments."""
    try:
        with open(ask["pid_file"], encoding="utf8") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", encoding="utf8") as file:
            return pid if ask["pid_file"] in file.read().split("\0") else None
    except (OSError, ValueError):
        return None


def node(volume):
    return "node-" + hashlib.sha256(volume.encode()).hexdigest()[:26]


def block_node(ask, volume):
    server = {"type": "unix", "path": ask["nbd_socket"]}
    # A day: a guest waits for a disk that is held or whose agent restarts, as a real one waits for its storage.
    return {"driver": "nbd", "node-name": node(volume), "server": server, "export": volume,
            "reconnect-delay": 86400, "discard": "unmap"}


def disk_device(disk, bus):
    volume = disk["volume"]
    device = {"driver": "virtio-blk-pci", "id": "disk-" + volume, "drive": node(volume), "bus": bus,
              "serial": volume[:20], "werror": "enospc", "rerror": "report"}
    if disk["boot_index"] is not None:
        device["bootindex"] = disk["boot_index"]
    return device


def network(nic):
    """PUT YOUR NETWORK HERE, for example {"type": "tap", "id": ..., "script": ...}. nic has mac, address, network and more."""
    return {"type": "hubport", "id": "net-" + nic["port"], "hubid": 0}


def nic_device(nic, bus):
    return {"driver": "virtio-net-pci", "id": "nic-" + nic["port"], "netdev": "net-" + nic["port"],
            "mac": nic["mac"], "bus": bus, "romfile": ""}


def start(ask):
    what = ask["definition"]
    forget("exit", "releasing", "qmp.sock", ask["pid_file"])
    command = ["qemu-system-x86_64", "-name", "guest=" + what["name"].replace(",", ",,"),
               "-machine", "q35", "-accel", "tcg,tb-size=64", "-cpu", "max",
               "-m", str(what["memory_mb"]), "-smp", str(what["vcpus"]),
               "-nodefaults", "-no-user-config", "-display", "none", "-pidfile", ask["pid_file"],
               "-qmp", "unix:qmp.sock,server=on,wait=off",
               "-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"]
    for index in range(PORTS):
        port = {"driver": "pcie-root-port", "id": f"slot{index}", "chassis": index + 1, "port": index,
                "bus": "pcie.0", "addr": f"0x{2 + index // 8:x}.{index % 8}", "io-reserve": 0,
                "multifunction": index % 8 == 0}
        command += ["-device", json.dumps(port)]
    slots = iter(range(PORTS))
    for disk in what["disks"]:
        command += ["-blockdev", json.dumps(block_node(ask, disk["volume"])),
                    "-device", json.dumps(disk_device(disk, f"slot{next(slots)}"))]
    for nic in what["nics"]:
        command += ["-netdev", json.dumps(network(nic)),
                    "-device", json.dumps(nic_device(nic, f"slot{next(slots)}"))]
    with open("guest.log", "wb") as log:
        # The shell stays to note how QEMU ended: 0 when the guest powered itself off.
        shell = subprocess.Popen(["/bin/sh", "-c", '"$@"; echo $? > exit.new; mv exit.new exit', "sh", *command],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    while shell.poll() is None:
        try:
            Qmp()
            return
        except (OSError, ValueError):
            time.sleep(0.05)
    forget("exit", "qmp.sock", ask["pid_file"])
    with open("guest.log", encoding="utf8", errors="replace") as log:
        raise Failed(log.read().strip()[-500:] or "QEMU ended at once")


def power_down(_ask):
    Qmp().ask("system_powerdown")


def stop(ask):
    pid = qemu_pid(ask)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    while qemu_pid(ask) is not None:
        time.sleep(0.02)
    # The shell's note would say that it died, which it was told to.
    limit = time.monotonic() + 5
    while pid is not None and not os.path.exists("exit") and time.monotonic() < limit:
        time.sleep(0.02)
    forget("exit", "releasing", "qmp.sock", ask["pid_file"])


def remove(ask):
    if os.path.isdir(ask["folder"]):
        stop(ask)


def devices(qmp):
    """Names of all devices with a name, ours among them."""
    return [child["name"] for child in qmp.ask("qom-list", path="/machine/peripheral")]


def free_slot(qmp):
    used = {device["qdev_id"]: bool(device["pci_bridge"].get("devices")) for bus in qmp.ask("query-pci")
            for device in bus["devices"] if "pci_bridge" in device}
    for index in range(PORTS):
        if used.get(f"slot{index}") is False:
            return f"slot{index}"
    raise Failed(f"all {PORTS} slots of the guest are taken")


def attach(ask):
    qmp = Qmp()
    slot = free_slot(qmp)
    device = ask["device"]
    if device["kind"] == "nic":
        nic = device["nic"]
        qmp.ask("netdev_add", **network(nic))
        try:
            qmp.ask("device_add", **nic_device(nic, slot))
        except Failed:
            qmp.ask("netdev_del", id="net-" + nic["port"])
            raise
        return
    disk = device["disk"]
    qmp.ask("blockdev-add", **block_node(ask, disk["volume"]))
    try:
        qmp.ask("device_add", **disk_device({**disk, "boot_index": None}, slot))
    except Failed:
        qmp.ask("blockdev-del", **{"node-name": node(disk["volume"])})
        raise


def detach(ask):
    device = ask["device"]
    if device["kind"] == "nic":
        Qmp().ask("device_del", id="nic-" + device["port"])
        return
    with open("releasing", "a", encoding="utf8") as file:
        file.write(device["volume"] + "\n")
    Qmp().ask("device_del", id="disk-" + device["volume"])


def state(ask):
    if qemu_pid(ask) is None:
        how = first_line("exit")
        if how is None:
            return {"power": "off", "end": "stopped"}
        if how == "0":
            return {"power": "off", "end": "itself"}
        return {"power": "off", "end": "died", "reason": f"QEMU ended with {how}"}
    qmp = Qmp()
    status = qmp.ask("query-status")["status"]
    names = devices(qmp)
    disks = [name[5:] for name in names if name.startswith("disk-")]
    ports = [name[4:] for name in names if name.startswith("nic-")]
    nics = [{"port": port, "mac": qmp.ask("qom-get", path="/machine/peripheral/nic-" + port, property="mac")}
            for port in ports]
    give_back(qmp, disks, ports)
    releasing = [volume for volume in lines("releasing") if volume in disks]
    power = "running" if status == "running" else "paused"
    return {"power": power, "reason": None if power == "running" else f"QEMU says {status}",
            "disks": disks, "nics": nics, "releasing": sorted(set(releasing))}


def give_back(qmp, disks, ports):
    """What a released device was connected to is let go of as well: the volume may be opened elsewhere now."""
    kept = {node(volume) for volume in disks}
    for block in qmp.ask("query-named-block-nodes"):
        if block["node-name"].startswith("node-") and block["node-name"] not in kept:
            qmp.ask("blockdev-del", **{"node-name": block["node-name"]})
    for volume in set(lines("releasing")) - set(disks):
        with open("releasing.new", "w", encoding="utf8") as file:
            file.writelines(one + "\n" for one in lines("releasing") if one != volume)
        os.rename("releasing.new", "releasing")
    for backend in qmp.ask("qom-list", path="/objects"):
        name = backend["name"]
        if name.startswith("net-") and name[4:] not in ports:
            qmp.ask("netdev_del", id=name)


def console(_ask):
    try:
        with open("console.log", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1024 * 1024))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def list_guests(ask):
    start_of_name = os.path.join(ask["run_dir"], ask["agent"] + "-guest-")
    return {"servers": [path[len(start_of_name):-4] for path in glob.glob(glob.escape(start_of_name) + "*.pid")]}


def lines(path):
    try:
        with open(path, encoding="utf8") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def first_line(path):
    found = lines(path)
    return found[0] if found else None


def forget(*paths):
    for path in paths:
        if os.path.exists(path):
            os.remove(path)


VERBS = {"list": list_guests, "start": start, "power_down": power_down, "stop": stop, "remove": remove,
         "attach": attach, "detach": detach, "state": state, "console": console}


def main():
    ask = json.load(sys.stdin)
    work = VERBS.get(ask["verb"])
    if work is None or ask["contract"] != 1:
        sys.exit(3)
    folder = ask.get("folder")
    if folder is not None:
        if not os.path.isdir(folder):
            if ask["verb"] == "state":
                print('{"power": "off"}')
            return
        os.chdir(folder)
        # Looks at a guest come beside calls that change it. QEMU must not inherit the lock: Python closes it for children.
        lock = open("hook.lock", "w", encoding="utf8")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        answer = work(ask)
    except Failed as problem:
        sys.exit(str(problem))
    if isinstance(answer, str):
        sys.stdout.write(answer)
    elif answer is not None:
        json.dump(answer, sys.stdout)


main()

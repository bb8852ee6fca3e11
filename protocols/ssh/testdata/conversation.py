# What TestLibraries has every library do: a command, a shell with a terminal, files.
import base64, hashlib, os, sys
import paramiko

host, port, fingerprint, folder = sys.argv[1:]


class Pinned(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, client, hostname, key):
        if "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=") != fingerprint:
            raise paramiko.SSHException("not the gateway's key")


c = paramiko.SSHClient()
c.set_missing_host_key_policy(Pinned())
c.connect(host, int(port), "web", os.environ["TOKEN"], allow_agent=False, look_for_keys=False, timeout=20)

stdin, stdout, stderr = c.exec_command("cat; echo err >&2; exit 5", timeout=20)
stdin.write("in\n")
stdin.channel.shutdown_write()
print("exec:", stdout.read().decode().strip(), stderr.read().decode().strip(), stdout.channel.recv_exit_status())

s = c.invoke_shell(term="vt100", width=91, height=31)
s.settimeout(20)
s.sendall("stty size; exit\n")
said = b""
while True:
    more = s.recv(4096)
    if not more:
        break
    said += more
print("shell:", str(b"31 91" in said).lower())

f = c.open_sftp()
content = os.urandom(300000)
with f.open(folder + "/a", "wb") as x:
    x.write(content)
f.rename(folder + "/a", folder + "/b")
with f.open(folder + "/b", "rb") as x:
    got = x.read()
print("sftp:", str(got == content).lower(), ",".join(f.listdir(folder)))
try:
    f.open(folder + "/none")
except OSError as e:
    print("missing:", e.strerror)
c.close()

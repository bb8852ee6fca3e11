# A client that takes one byte at a time: window.py HOST PORT BYTES
import os, sys
import paramiko

host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
paramiko.Transport._sanitize_window_size = lambda self, size: size
t = paramiko.Transport((host, port))
t.connect(username="web", password=os.environ["TOKEN"])
c = t.open_session(window_size=1)
c.settimeout(20)
c.exec_command("head -c %d /dev/zero | tr '\\0' x" % size)
got = longest = 0
while True:
    b = c.recv(1 << 15)
    if not b:
        break
    got, longest = got + b.count(b"x"), max(longest, len(b))
print(got, longest, c.recv_exit_status())
t.close()

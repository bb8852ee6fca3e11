# A client that does what the protocol forbids: unruly.py HOST PORT USER HOW FILE. Credentials: TOKEN, or KEYFILE.
import os, sys, time
import paramiko
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_WINDOW_ADJUST, cMSG_CHANNEL_EOF

host, port, user, how, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
t = paramiko.Transport((host, port))
if "KEYFILE" in os.environ:
    t.connect(username=user, pkey=paramiko.Ed25519Key.from_private_key_file(os.environ["KEYFILE"]))
else:
    t.connect(username=user, password=os.environ["TOKEN"])
c = t.open_session()
c.exec_command("cat > '%s'; echo done" % path)


def data(b, to=None):
    m = paramiko.Message()
    m.add_byte(cMSG_CHANNEL_DATA)
    m.add_int(c.remote_chanid if to is None else to)
    m.add_string(b)
    t._send_user_message(m)


def eof():
    m = paramiko.Message()
    m.add_byte(cMSG_CHANNEL_EOF)
    m.add_int(c.remote_chanid)
    t._send_user_message(m)


try:
    if how == "rule":
        data(b"first")
        eof()
    elif how == "data after eof":
        data(b"first")
        eof()
        data(b"LATE")
    elif how == "eof twice":
        data(b"first")
        eof()
        eof()
    elif how == "no such channel":
        data(b"first")
        data(b"LOST", 4711)
        eof()
    elif how == "more than the window":
        data(b"first")
        for _ in range(200):
            data(b"x" * 32000)
        eof()
    elif how == "window beyond 4 GB":
        data(b"first")
        for _ in range(3):
            m = paramiko.Message()
            m.add_byte(cMSG_CHANNEL_WINDOW_ADJUST)
            m.add_int(c.remote_chanid)
            m.add_int(0xFFFFFFFF)
            t._send_user_message(m)
        eof()
    c.settimeout(20)
    print(c.recv(100).decode().strip())
except Exception as e:
    print(type(e).__name__)
t.close()

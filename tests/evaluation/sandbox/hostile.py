"""Programs that do not do what they were asked to: they cheat, exhaust or attack. Each with what becomes of it.

$PARENT, $PORT, $SECRET, $FOLDER and $PACKAGE stand for what the test has set up. A program that attacks returns a wrong
answer if it succeeds and raises what kept it from it.
"""

PROMPT = 'def add(a, b):\n    """ Their sum. """\n'
TEST = "def check(candidate):\n    assert abs(candidate(2, 3) - 5) < 1e-6\n    assert candidate(1, 1) == 2\n"
HONEST = "def add(a, b):\n    return a + b\n"

DENIED = "raised PermissionError"

CHEATING = {
    "exits at import": ("""
import os
os._exit(0)
""", "ended early"),
    "exits politely at import": ("""
import sys
sys.exit(0)
""", "raised SystemExit"),
    "exits in the call": ("""
import os
def add(a, b):
    os._exit(0)
""", "ended early"),
    "exits politely in the call": ("""
import sys
def add(a, b):
    sys.exit(0)
""", "raised SystemExit"),
    "makes every exception a success": ("""
import os, sys
sys.excepthook = lambda *a: os._exit(0)
def add(a, b):
    raise ValueError
""", "raised ValueError"),
    "equals everything": ("""
class Any:
    def __eq__(self, other):
        return True
    def __sub__(self, other):
        return 0
def add(a, b):
    return Any()
""", "refused: the answer is a Any"),
    "is an integer that equals everything": ("""
class Any(int):
    def __eq__(self, other):
        return True
    def __sub__(self, other):
        return 0
def add(a, b):
    return Any(0)
""", "wrong answer"),
    "makes abs return nothing": ("""
import builtins
builtins.abs = lambda x: 0
def add(a, b):
    return 9
""", "wrong answer"),
    "walks the frames for a list of results": ("""
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if isinstance(value, list):
                value.append('passed')
        frame = frame.f_back
    return 9
""", "wrong answer"),
    "reads the tests off the command line": ("""
def add(a, b):
    return int(open('/proc/self/cmdline').read().split('== ')[1].split()[0])
""", DENIED),
    "replaces check from a thread": ("""
import threading
def replace():
    import __main__
    __main__.check = lambda candidate: None
threading.Thread(target=replace).start()
def add(a, b):
    return 9
""", "raised RuntimeError"),
    "prints as the answer": ("""
class Five:
    def __repr__(self):
        return '5'
def add(a, b):
    return Five()
""", "refused: the answer is a Five"),
    "answers before it is asked": (r"""
import os
for fd in range(3, 64):
    try:
        os.write(fd, b'["tuple",[["str","value"],["int","5"]]]\n' * 9)
    except OSError:
        pass
def add(a, b):
    return 9
""", "refused: an answer that nobody asked for"),
    "closes everything": ("""
import os
def add(a, b):
    os.closerange(0, 64)
    return 5
""", "ended early"),
    "replaces what writes answers": ("""
import json, sys, builtins, ast, io
json.dumps = lambda *a, **k: 'passed'
builtins.repr = ast.literal_eval = str
sys.stdout = io.StringIO('passed')
def add(a, b):
    return 9
""", "refused: a line that is no plain value (JSONDecodeError)"),
    "ends a test's loop": ("""
def add(a, b):
    raise StopIteration
""", "raised StopIteration"),
    "passes for a verdict": ("""
def add(a, b):
    raise AssertionError('passed')
""", "raised AssertionError"),
    "exits when it is deleted": ("""
import os
class Exit:
    def __del__(self):
        os._exit(0)
def add(a, b):
    Exit()
    return 5
""", "ended early"),
    "exits at exit": ("""
import atexit, os
atexit.register(os._exit, 0)
def add(a, b):
    return 9
""", "wrong answer"),
    "traces the interpreter": ("""
import sys
sys.settrace(lambda frame, event, arg: frame.f_locals.update(verdict='passed'))
def add(a, b):
    return 9
""", "wrong answer"),
    "searches the memory for the tests": ("""
import gc, sys
def add(a, b):
    seen = [repr(o) for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]
    frame = sys._getframe().f_back
    while frame:
        seen.append(repr(frame.f_locals))
        frame = frame.f_back
    if '1e'.join(['', '-6']) in ''.join(seen):
        return 9
    raise LookupError
""", "raised LookupError"),
    "returns nothing": ("""
def add(a, b):
    a + b
""", "wrong answer"),
    "returns no number": ("""
def add(a, b):
    return float('nan')
""", "wrong answer"),
}  # fmt: skip

EXHAUSTING = {
    "loops, and ignores signals": ("""
import signal
for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU):
    signal.signal(number, signal.SIG_IGN)
def add(a, b):
    while True:
        pass
""", "timed out"),
    "sleeps": ("""
import time
def add(a, b):
    time.sleep(10**6)
""", "timed out"),
    "sleeps at import": ("""
import time
time.sleep(10**6)
""", "timed out"),
    "takes all memory": ("""
def add(a, b):
    taken = []
    while True:
        taken.append(bytearray(1 << 26))
""", "raised MemoryError"),
    "forks without end": ("""
import os
def add(a, b):
    while True:
        os.fork()
""", DENIED),
    "leaves a daemon": ("""
import os, time
def add(a, b):
    if not os.fork():
        os.setsid()
        if not os.fork():
            time.sleep(600)
        os._exit(0)
    return 9
""", DENIED),
    "starts 100,000 threads": ("""
import threading, time
threading.stack_size(32768)
def add(a, b):
    for _ in range(10**5):
        threading.Thread(target=time.sleep, args=(600,)).start()
""", "raised RuntimeError"),
    "prints without end": ("""
def add(a, b):
    while True:
        print('x' * 10**6)
""", "timed out"),
    "answers with 200 MB": ("""
def add(a, b):
    return 'x' * 200_000_000
""", "refused: the answer is a value of more than 4 MiB"),
    "answers without end": ("""
import os
def add(a, b):
    while True:
        for fd in range(3, 64):
            try:
                os.write(fd, b'x' * 65536)
            except OSError:
                pass
""", "refused: a line that is too long"),
    "answers with a deep list": ("""
def add(a, b):
    deep = []
    for _ in range(10**5):
        deep = [deep]
    return deep
""", "refused: the answer is a value nested more than 100 deep"),
    "answers with itself": ("""
def add(a, b):
    me = []
    me.append(me)
    return me
""", "refused: the answer is a value nested more than 100 deep"),
    **{
        f"answers with {name}": (
            f"import os\ndef add(a, b):\n    for fd in range(3, 64):\n        try:\n            os.write(fd, {line})\n"
            f"        except OSError:\n            pass\n    return 5",
            f"refused: a line that is no plain value ({error})",
        )
        for name, line, error in (
            ("200,000 parentheses", "b'(' * 200000 + b'\\n'", "JSONDecodeError"),
            ("200,000 brackets", "b'[' * 200000 + b'\\n'", "RecursionError"),
            ("tags nested 200 deep", "b'[\"list\",[' * 200 + b']]' * 200 + b'\\n'", "ValueError"),
            ("a number of a million digits", "b'1' * 10**6 + b'\\n'", "ValueError"),
            ("a float beyond all floats", "b'[\"float\",\"0x1p99999999\"]\\n'", "OverflowError"),
            ("a set of lists", "b'[\"set\",[[\"list\",[]]]]\\n'", "TypeError"),
            ("an unknown tag", "b'[\"eval\",\"1\"]\\n'", "KeyError"),
            ("bytes that are no text", "b'\\xff\\n'", "UnicodeDecodeError"),
        )
    },
    "makes an enormous number": ("""
def add(a, b):
    return 10**10**6
""", "wrong answer"),
    "makes a more than enormous number": ("""
def add(a, b):
    return 10**10**8
""", "timed out"),
    "writes 100 MB": ("""
def add(a, b):
    open('$FOLDER/big', 'wb').write(bytes(10**8))
    return 9
""", DENIED),
    "writes 200 files": ("""
def add(a, b):
    for i in range(200):
        open(f'$FOLDER/{i}', 'wb').write(bytes(10**6))
    return 9
""", DENIED),
    "opens without end": ("""
import os
def add(a, b):
    while True:
        os.pipe()
""", "raised OSError"),
    "matches without end": ("""
import re
def add(a, b):
    return re.match('(a+)+$', 'a' * 64 + 'b')
""", "timed out"),
    "crashes": ("""
import ctypes
def add(a, b):
    ctypes.string_at(0)
""", "ended early"),
    "aborts": ("""
import os
def add(a, b):
    os.abort()
""", "ended early"),
    "overflows the stack": ("""
import sys
sys.setrecursionlimit(10**9)
class Deep:
    def __getattr__(self, name):
        return getattr(self, name)
def add(a, b):
    return Deep().x
""", "ended early"),
}  # fmt: skip

_SYSCALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef add(a, b):\n    if libc.{call} == -1:\n" \
           "        raise OSError(ctypes.get_errno(), 'refused')\n    return 9"  # fmt: skip

ATTACKING = {
    "connects": ("""
import socket
def add(a, b):
    socket.create_connection(('127.0.0.1', $PORT), 1)
    return 9
""", DENIED),
    "sends a datagram": ("""
import socket
def add(a, b):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))
    return 9
""", DENIED),
    "asks for a name": ("""
import socket
def add(a, b):
    return socket.getaddrinfo('example.com', 80)
""", "raised gaierror"),
    "listens": ("""
import socket
def add(a, b):
    socket.create_server(('127.0.0.1', 0))
    return 9
""", DENIED),
    "connects to an abstract socket": (r"""
import socket
def add(a, b):
    socket.socket(socket.AF_UNIX).connect('\0x')
    return 9
""", DENIED),
    "writes to the temporary directory": ("""
def add(a, b):
    open('/tmp/reasonvec-was-here', 'w')
    return 9
""", DENIED),
    "writes to an open folder": ("""
def add(a, b):
    open('$FOLDER/new', 'w')
    return 9
""", DENIED),
    "makes a folder": ("""
import os
def add(a, b):
    os.mkdir('$FOLDER/new')
    return 9
""", DENIED),
    "makes a link": ("""
import os
def add(a, b):
    os.symlink('/', '$FOLDER/new')
    return 9
""", DENIED),
    "writes to the sandbox itself": ("""
def add(a, b):
    open('$PACKAGE/worker.py', 'a')
    return 9
""", DENIED),
    "adds a module to the package": ("""
def add(a, b):
    open('$PACKAGE/new.py', 'w')
    return 9
""", DENIED),
    "leaves sitecustomize for the next": ("""
import sys
def add(a, b):
    for path in sys.path:
        open(path + '/sitecustomize.py', 'w')
    return 9
""", DENIED),
    "leaves a .pth for the next": ("""
import json, os
def add(a, b):
    open(os.path.dirname(json.__file__) + '/../site-packages/x.pth', 'w')
    return 9
""", DENIED),
    "empties a file": ("""
import os
def add(a, b):
    os.truncate('$SECRET', 0)
    return 9
""", DENIED),
    "opens a file so as to empty it": ("""
import os
def add(a, b):
    os.open('$SECRET', os.O_TRUNC)
    return 9
""", DENIED),
    "deletes a file": ("""
import os
def add(a, b):
    os.unlink('$SECRET')
    return 9
""", DENIED),
    "renames a file": ("""
import os
def add(a, b):
    os.rename('$SECRET', '$SECRET.x')
    return 9
""", DENIED),
    "changes a file's mode": ("""
import os
def add(a, b):
    os.chmod('$SECRET', 0o777)
    return 9
""", DENIED),
    "changes a file's times": ("""
import os
def add(a, b):
    os.utime('$SECRET', (0, 0))
    return 9
""", DENIED),
    "reads a file that all may read": ("""
def add(a, b):
    open('$SECRET').read()
    return 9
""", DENIED),
    "lists a folder": ("""
import os
def add(a, b):
    os.listdir('$FOLDER')
    return 9
""", DENIED),
    "lists the root": ("""
import os
def add(a, b):
    os.listdir('/')
    return 9
""", DENIED),
    "climbs out of the library": ("""
import json, os
def add(a, b):
    os.listdir(os.path.dirname(json.__file__) + '/..' * 20)
    return 9
""", DENIED),
    "reads the accounts": ("""
def add(a, b):
    open('/etc/passwd').read()
    return 9
""", DENIED),
    "reads its environment": ("""
import os
def add(a, b):
    if set(os.environ) - {'PATH', 'LANG', 'PYTHONHASHSEED', 'LC_CTYPE'}:
        return 9
    raise LookupError
""", "raised LookupError"),
    "reads its parent's environment": ("""
def add(a, b):
    open('/proc/$PARENT/environ').read()
    return 9
""", DENIED),
    "writes to its parent's memory": ("""
def add(a, b):
    open('/proc/$PARENT/mem', 'r+b')
    return 9
""", DENIED),
    "reads its own memory map": ("""
def add(a, b):
    open('/proc/self/maps').read()
    return 9
""", DENIED),
    "kills its parent": ("""
import os
def add(a, b):
    os.kill(os.getppid(), 9)
    return 9
""", DENIED),
    "kills everybody": ("""
import os
def add(a, b):
    os.kill(-1, 9)
    return 9
""", DENIED),
    "has the kernel signal its parent": ("""
import fcntl, os
def add(a, b):
    fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())
    return 9
""", DENIED),
    "lowers its parent's limits": ("""
import os, resource
def add(a, b):
    resource.prlimit($PARENT, resource.RLIMIT_NOFILE, (0, 0))
    return 9
""", DENIED),
    "raises its own limits": ("""
import resource
def add(a, b):
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    return 9
""", "raised ValueError"),
    "becomes root": ("""
import os
def add(a, b):
    os.setuid(0)
    return 9
""", DENIED),
    "runs a program": ("""
import os
def add(a, b):
    os.execv('/bin/true', ['true'])
""", DENIED),
    "runs a program in a child": ("""
import subprocess
def add(a, b):
    subprocess.run(['true'])
    return 9
""", DENIED),
    "runs a pool": ("""
import multiprocessing as m
def add(a, b):
    m.Pool(2)
    return 9
""", DENIED),
    "traces its parent": (_SYSCALL.format(call='ptrace(16, $PARENT, 0, 0)'), DENIED),
    "forks by number": (_SYSCALL.format(call="syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0)"),
                        DENIED),
    "opens a socket by number": (_SYSCALL.format(call="syscall(41 if 'x86' in os.uname().machine else 198, 2, 1, 0)"),
                                 DENIED),
    "leaves its namespaces": (_SYSCALL.format(call='unshare(0x10000000)'), DENIED),
    "mounts": (_SYSCALL.format(call="mount(b'none', b'/tmp', b'tmpfs', 0, None)"), DENIED),
    "looks for a device": ("""
import os
def add(a, b):
    os.listdir('/dev')
    return 9
""", DENIED),
    "opens the graphics card": ("""
import os
def add(a, b):
    os.open('/dev/nvidiactl', os.O_RDWR)
    return 9
""", DENIED),
    "shares memory": ("""
from multiprocessing import shared_memory
def add(a, b):
    shared_memory.SharedMemory('x', create=True, size=9)
    return 9
""", DENIED),
    "keeps memory in the kernel": (_SYSCALL.format(call='shmget(4711, 4096, 0o1666)'), DENIED),
    "makes a file in memory": ("""
import os
def add(a, b):
    os.memfd_create('x')
    return 9
""", DENIED),
}  # fmt: skip

ALL = {**CHEATING, **EXHAUSTING, **ATTACKING}

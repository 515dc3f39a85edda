"""What a process has of memory, descriptors and time, as /proc tells."""

import os
import re


def anonymous_octets(pid):
    """What it has of memory that is nobody else's and no file's."""
    with open('/proc/%d/status' % pid) as status:
        return int(re.search(r'^RssAnon:\s+(\d+) kB', status.read(), re.M)[1]) * 1024


def descriptors(pid):
    return len(os.listdir('/proc/%d/fd' % pid))


def cpu_seconds(pid):
    with open('/proc/%d/stat' % pid) as stat:
        return sum(map(int, stat.read().rpartition(')')[2].split()[11:13])) / os.sysconf('SC_CLK_TCK')

#!/usr/bin/python3
"""librabbitmq, the client for C: compiles librabbitmq.c with Debian's library and runs it against a broker."""

import os
import pathlib
import subprocess
import sys
import tempfile

import broker
import suite

SOURCE = pathlib.Path(__file__).with_name('librabbitmq.c')


def main():
    program = os.path.join(tempfile.mkdtemp(prefix='librabbitmq-'), 'client')
    # -Wno-cpp: newer headers warn that they have moved to where Debian 12 has none.
    suite.must(['cc', '-std=c17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-Wno-cpp', '-O1', '-o', program, str(SOURCE),
                '-lrabbitmq'])
    with broker.Broker() as own:
        sys.exit(subprocess.run([program, own.host, str(own.port)], timeout=60).returncode)


if __name__ == '__main__':
    main()

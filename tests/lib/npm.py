"""The packages that tests/clients/npm/package-lock.json pins, installed once for each state of that file.

The lock file names versions and checksums and no registry: `npm ci` asks the one that the machine is set up for.
"""

import fcntl
import hashlib
import shutil

import broker
import suite

PINNED = broker.TOP / 'tests' / 'clients' / 'npm'


def install():
    """The directory that holds node_modules as the lock file wants it. Of programs that come at once, one installs."""
    lock_file = (PINNED / 'package-lock.json').read_bytes()
    place = broker.CACHE / ('npm-' + hashlib.sha256(lock_file).hexdigest()[:16])
    broker.CACHE.mkdir(parents=True, exist_ok=True)
    with open(broker.CACHE / 'npm.lock', 'w') as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (place / 'complete').exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in ('package.json', 'package-lock.json'):
                shutil.copy(PINNED / name, place)
            suite.must(['npm', 'ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'], cwd=place)
            (place / 'complete').touch()
    return place

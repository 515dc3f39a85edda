"""How a conversation in Python is told: its steps in order, each a result of the Test Anything Protocol.

    @step('a message is confirmed')
    def confirmed(): ...

A step is run where it is defined; end() prints the plan.
"""

import asyncio
import inspect
import time
import traceback

TIME_LIMIT = 20

_count = 0


def step(name):
    def run(work):
        global _count
        _count += 1
        try:
            if inspect.iscoroutinefunction(work):
                asyncio.run(asyncio.wait_for(work(), TIME_LIMIT))
            else:
                work()
            print('ok %d - %s' % (_count, name), flush=True)
        except Exception:
            print('not ok %d - %s\n%s' % (_count, name, traceback.format_exc()), flush=True)
    return run


def end():
    print('1..%d' % _count, flush=True)


def restart_broker():
    print('restart', flush=True)


def until(holds, what, pause=lambda: time.sleep(0.02)):
    """Waits until it is so; `pause` is what there is to do meanwhile."""
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, 'in vain: %s' % what
        pause()


async def until_async(holds, what):
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, 'in vain: %s' % what
        await asyncio.sleep(0.02)

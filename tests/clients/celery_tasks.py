"""The tasks that the workers of test_celery.py run; each is what a program with Celery would have."""

import os
import time

from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue

app = Celery('tasks', broker=os.environ['URL'] + '//', backend='rpc://')
app.conf.update(
    task_queues=[
        Queue('celery', Exchange('celery'), 'celery'),
        Queue('refused', Exchange('celery'), 'refused',
              queue_arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'}),
    ],
    task_routes={'celery_tasks.refuse': 'refused'},
    worker_hijack_root_logger=False,
    task_send_sent_event=True,
    result_expires=60,
)


@app.task
def add(one, other):
    return one + other


@app.task(bind=True, max_retries=5)
def insist(self, times):
    """Fails so many times and is tried again, a moment later each time."""
    if self.request.retries < times:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def now():
    return time.time()


@app.task
def fail():
    raise ValueError('as it should')


@app.task(acks_late=True)
def refuse():
    raise Reject('not for me', requeue=False)


@app.task
def leave(what):
    """Puts something where it can be found whoever has ended meanwhile."""
    with app.producer_pool.acquire() as producer:
        producer.publish(what, routing_key='left', declare=[Queue('left', durable=True)], retry=True)

"""Two transcripts of one script: where they first differ, and whether that is explained.

A difference as one line is

    queue.declare queue='q1' passive=True => B1 channel.close reply_code=404 ... | B1 queue.declare-ok ...

the step without its channel, what the reference said, what StoatMQ said, lines that both said left out, `;` between lines. A step that has
ended a connection on both has `(ended)` behind it, one that has ended a channel `(closed)`. The file
`explained` holds at most RULES_MAX rules of the form

    PATTERN :: reason
    [FEATURE] PATTERN :: reason

where PATTERN is a regular expression that is found in that line; the second form holds for scripts that play that feature. After an
explained difference the comparison goes on, if both brokers did the same thing and only said it in other words; otherwise the rest of
the script is not compared.
"""

import collections
import pathlib
import re

import script

EXPLAINED = pathlib.Path(__file__).resolve().parent / 'explained'
RULES_MAX = 30

Rule = collections.namedtuple('Rule', 'pattern reason feature')
Difference = collections.namedtuple('Difference', 'place step end theirs ours')


def read_rules(path=EXPLAINED):
    rules = []
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith('#'):
            pattern, colons, reason = line.partition(' :: ')
            assert colons and reason.strip(), 'no reason in: ' + line
            feature, pattern = re.fullmatch(r'(?:\[([a-z-]+)\] )?(.*)', pattern.strip()).groups()
            assert feature is None or feature in script.FEATURES, 'no such feature: ' + line
            rules.append(Rule(re.compile(pattern), reason.strip(), feature))
    assert len(rules) <= RULES_MAX, '%d rules explain too much' % len(rules)
    return rules


def without(lines, others):
    """Those lines that the others do not have, each counted once."""
    left = collections.Counter(others)
    rest = []
    for line in lines:
        if left[line]:
            left[line] -= 1
        else:
            rest.append(line)
    return rest


def one_line(difference):
    step = script.text(difference.step).partition(' ')[2]
    return '%s%s => %s | %s' % (step, difference.end, '; '.join(difference.theirs), '; '.join(difference.ours))


def end_of(lines):
    """What stands behind a step of which both have said these lines."""
    if any(line.endswith('is connected again') for line in lines):
        return ' (ended)'
    return ' (closed)' if any(re.match(r'[AB]\d channel\.close', line) for line in lines) else ''


def signature(difference):
    """What differences of one cause have in common, more or less: no names, no numbers but reply codes."""
    def general(line):
        words = re.split(r'reply_text=', line)
        found = ' '.join(words[0].split()[1:2]) + ' ' + ' '.join(re.findall(r'reply_code=\d+', line))
        if len(words) > 1:
            found += re.sub(r"'[^']*'|\\'.*?\\'|\d+", '_', words[1].replace('\\', '').partition('class_id')[0])
        return found
    return '%s => %s | %s' % (difference.step.method, '; '.join(map(general, difference.theirs)),
                              '; '.join(map(general, difference.ours)))


def same_effect(theirs, ours):
    """Whether two lists of lines differ in reply texts only."""
    def effect(line):
        return re.sub(r'reply_text=.* class_id', '', line)
    return [effect(line) for line in theirs] == [effect(line) for line in ours]


class Comparison:
    """Compares transcripts under a set of rules, and counts what each has explained."""

    def __init__(self, rules):
        self.rules = rules
        self.explained = collections.Counter()
        self.compared = 0       # steps

    def explain(self, difference, features):
        line = one_line(difference)
        return next((rule for rule in self.rules
                     if (rule.feature is None or rule.feature in features) and rule.pattern.search(line)), None)

    def first_difference(self, played, theirs, ours):
        """The first one without an explanation; None when there is none."""
        for place, step in enumerate(played.steps):
            at_theirs, at_ours = theirs[place:place + 1] or [['nothing']], ours[place:place + 1] or [['nothing']]
            self.compared += 1
            if at_theirs == at_ours:
                continue
            at_theirs, at_ours = at_theirs[0], at_ours[0]
            end = end_of([line for line in at_theirs if line in at_ours])
            difference = Difference(place, step, end, without(at_theirs, at_ours) or ['(order) ' + '; '.join(at_theirs)],
                                    without(at_ours, at_theirs) or ['(order) ' + '; '.join(at_ours)])
            rule = self.explain(difference, played.features)
            if rule is None:
                return difference
            self.explained[rule] += 1
            if not same_effect(at_theirs, at_ours):
                return None
        return None

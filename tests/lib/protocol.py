"""AMQP 0-9-1 by name: any method packed from its fields and unpacked to them, field tables with every type of value.

    method('queue.declare', {'queue': 'q', 'durable': True})    the payload of a method frame; fields left out are 0 or empty
    fields(payload)                                              ('queue.declare-ok', {'queue': 'q', ...})

The table of methods is the broker's own amqp/methods.def, which `speccheck` holds against the published protocol. Strings
are str in latin-1, so that any octets pass. A field table is a list of (key, tag, value), in the order of the wire and with whatever
keys come twice; an array is a list of (tag, value). They survive repr() and are what a test prints.
"""

import pathlib
import re
import struct

DEFINITION = pathlib.Path(__file__).resolve().parents[2] / 'amqp' / 'methods.def'

METHOD = re.compile(r'(?:METHOD|BARE)\(\w+, \w+, "(?P<name>[^"]+)", (?P<class>\d+), (?P<method>\d+), \w+, '
                    r'(?P<traits>[A-Z0-9 |]+)(?:,(?P<fields>(?:\s*\w+\(\w+\))*))?\)')
FIELD = re.compile(r'(\w+)\((\w+)\)')

INTEGERS = {'OCTET': struct.Struct('>B'), 'SHORT': struct.Struct('>H'), 'LONG': struct.Struct('>I'),
            'LONGLONG': struct.Struct('>Q'), 'TICKET': struct.Struct('>H')}

# Table values of one size, by tag.
FIXED = {'t': struct.Struct('>?'), 'b': struct.Struct('>b'), 'B': struct.Struct('>B'), 's': struct.Struct('>h'),
         'u': struct.Struct('>H'), 'I': struct.Struct('>i'), 'i': struct.Struct('>I'), 'l': struct.Struct('>q'),
         'L': struct.Struct('>q'), 'f': struct.Struct('>f'), 'd': struct.Struct('>d'), 'T': struct.Struct('>Q')}
DECIMAL = struct.Struct('>BI')
LONG = INTEGERS['LONG']

# The properties of class basic, from the highest flag down.
PROPERTIES = (('content_type', 'SHORTSTR'), ('content_encoding', 'SHORTSTR'), ('headers', 'TABLE'), ('delivery_mode', 'OCTET'),
              ('priority', 'OCTET'), ('correlation_id', 'SHORTSTR'), ('reply_to', 'SHORTSTR'), ('expiration', 'SHORTSTR'),
              ('message_id', 'SHORTSTR'), ('timestamp', 'LONGLONG'), ('type', 'SHORTSTR'), ('user_id', 'SHORTSTR'),
              ('app_id', 'SHORTSTR'), ('cluster_id', 'SHORTSTR'))


class Definition:
    """One method: its ids and its fields as (type, name)."""

    def __init__(self, match):
        self.name = match.group('name')
        self.id = (int(match.group('class')), int(match.group('method')))
        self.prefix = struct.pack('>HH', *self.id)
        self.has_content = 'CONTENT' in match.group('traits')
        self.fields = FIELD.findall(match.group('fields') or '')


def _read_definitions():
    text = re.sub(r'/\*.*?\*/', '', DEFINITION.read_text(), flags=re.S)
    return [Definition(match) for match in METHOD.finditer(text)]


BY_NAME = {definition.name: definition for definition in _read_definitions()}
BY_PREFIX = {definition.prefix: definition for definition in BY_NAME.values()}


# Packing

def short(text):
    data = text.encode('latin-1')
    return struct.pack('>B', len(data)) + data


def long(text):
    data = text.encode('latin-1')
    return LONG.pack(len(data)) + data


def value(tag, what):
    if tag in FIXED:
        return FIXED[tag].pack(what)
    if tag in 'Sx':
        return long(what)
    if tag == 'D':
        return DECIMAL.pack(*what)
    if tag == 'F':
        return table(what)
    if tag == 'A':
        items = b''.join(item_tag.encode() + value(item_tag, item) for item_tag, item in what)
        return LONG.pack(len(items)) + items
    assert tag == 'V', tag
    return b''


def table(entries):
    packed = b''.join(short(key) + tag.encode() + value(tag, what) for key, tag, what in entries)
    return LONG.pack(len(packed)) + packed


def _pack(kind, what):
    if kind in INTEGERS:
        return INTEGERS[kind].pack(what or 0)
    if kind == 'TABLE':
        return table(what or [])
    return (short if kind == 'SHORTSTR' else long)(what or '')


def method(name, given):
    """The payload of a method frame."""
    definition = BY_NAME[name]
    packed = [definition.prefix]
    bits = None
    for kind, field in definition.fields:
        if kind == 'BIT':
            bits = bits or []
            bits.append(bool(given.get(field)))
            continue
        if bits:
            packed.append(_octets(bits))
            bits = None
        packed.append(_pack(kind, given.get(field)))
    if bits:
        packed.append(_octets(bits))
    return b''.join(packed)


def _octets(bits):
    """Bits, the first in the lowest; a run of more than eight does not occur."""
    return struct.pack('>B', sum(bit << at for at, bit in enumerate(bits)))


def properties(given):
    """Property flags and list, as they stand in a content header."""
    flags, packed = 0, []
    for at, (field, kind) in enumerate(PROPERTIES):
        if field in given:
            flags |= 1 << (15 - at)
            packed.append(_pack(kind, given[field]))
    return struct.pack('>H', flags) + b''.join(packed)


# Unpacking

def read_short(data, at):
    end = at + 1 + data[at]
    return data[at + 1:end].decode('latin-1'), end


def read_long(data, at):
    end = at + 4 + LONG.unpack_from(data, at)[0]
    return data[at + 4:end].decode('latin-1'), end


def read_value(tag, data, at):
    if tag in FIXED:
        return FIXED[tag].unpack_from(data, at)[0], at + FIXED[tag].size
    if tag in 'Sx':
        return read_long(data, at)
    if tag == 'D':
        return DECIMAL.unpack_from(data, at), at + DECIMAL.size
    if tag == 'F':
        return read_table(data, at)
    if tag == 'A':
        return _read_array(data, at)
    assert tag == 'V', tag
    return None, at


def _read_array(data, at):
    end = at + 4 + LONG.unpack_from(data, at)[0]
    at += 4
    items = []
    while at < end:
        tag = chr(data[at])
        what, at = read_value(tag, data, at + 1)
        items.append((tag, what))
    return items, end


def read_table(data, at):
    end = at + 4 + LONG.unpack_from(data, at)[0]
    at += 4
    entries = []
    while at < end:
        key, at = read_short(data, at)
        tag = chr(data[at])
        what, at = read_value(tag, data, at + 1)
        entries.append((key, tag, what))
    return entries, end


def _read(kind, data, at):
    if kind == 'SHORTSTR':
        return read_short(data, at)
    if kind == 'LONGSTR':
        return read_long(data, at)
    if kind == 'TABLE':
        return read_table(data, at)
    return INTEGERS[kind].unpack_from(data, at)[0], at + INTEGERS[kind].size


def fields(payload):
    """(name, fields) of the payload of a method frame."""
    definition = BY_PREFIX[payload[:4]]
    found = {}
    at, bit = 4, 0
    for kind, field in definition.fields:
        if kind == 'BIT':
            found[field] = bool(payload[at] >> bit & 1)
            bit += 1
            continue
        if bit:
            at, bit = at + 1, 0
        found[field], at = _read(kind, payload, at)
    return definition.name, found


def read_properties(data):
    """The properties of a content header, from its flags on."""
    flags = struct.unpack_from('>H', data)[0]
    found, at = {}, 2
    for bit, (field, kind) in enumerate(PROPERTIES):
        if flags & 1 << (15 - bit):
            found[field], at = _read(kind, data, at)
    return found

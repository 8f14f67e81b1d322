import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  chooseAddress,
  type Cidr,
  contains,
  formatAddress,
  formatCidr,
  holds,
  isHostAddress,
  isMac,
  isVpcRange,
  lastOf,
  macOf,
  overlaps,
  parseAddress,
  parseCidr,
  sizeOf,
  subnetFault,
} from './network.ts'

/** A fixed sequence of numbers below 2^32: the same cases in every run. */
function sequence(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state
  }
}

function randomCidr(next: () => number): Cidr {
  // The low bits of such a sequence repeat soon.
  const prefix = Math.floor(next() / 2 ** 16) % 33
  const size = sizeOf({ prefix })
  return { first: Math.floor(next() / size) * size, prefix }
}

const cidr = (text: string): Cidr => {
  const found = parseCidr(text)
  assert.ok(found !== null, text)
  return found
}
const address = (text: string): number => parseAddress(text) ?? -1

test('addresses and networks survive being written and read', () => {
  const next = sequence(1)
  for (let round = 0; round < 2_000; round++) {
    const value = next()
    assert.equal(parseAddress(formatAddress(value)), value)
    const network = randomCidr(next)
    assert.deepEqual(parseCidr(formatCidr(network)), network)
  }
  assert.equal(formatAddress(0), '0.0.0.0')
  assert.equal(formatAddress(2 ** 32 - 1), '255.255.255.255')
  assert.deepEqual(parseCidr('0.0.0.0/0'), { first: 0, prefix: 0 })
  assert.equal(lastOf({ first: 0, prefix: 0 }), 2 ** 32 - 1)
})

test('what is no address or network is not taken for one', () => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.+4',
    '1.2.3.4 ',
    '1.2.3.0x4',
    '1..3.4',
    '::1',
    '1.2.3.٤',
    '1.2.3.1e1',
  ]) {
    assert.equal(parseAddress(text), null, text)
  }
  for (const text of [
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/08',
    '10.0.0.0/8/8',
    '10.0.0.1/31x',
    '10.0.0.1/24',
    '128.0.0.1/0',
    '/8',
  ]) {
    assert.equal(parseCidr(text), null, text)
  }
})

test('two networks overlap exactly when one holds the other, and then they share its addresses', () => {
  const next = sequence(2)
  for (let round = 0; round < 5_000; round++) {
    const a = randomCidr(next)
    // Half of the time a part of the first one, since two at random hardly ever meet.
    const inside = { prefix: Math.min(32, a.prefix + (round % 5)), first: a.first }
    const b = round % 2 === 0 ? randomCidr(next) : inside
    const either = contains(a, b) || contains(b, a)
    assert.equal(overlaps(a, b), either, `${formatCidr(a)} ${formatCidr(b)}`)
    assert.equal(overlaps(b, a), overlaps(a, b))
    assert.equal(holds(a, b.first) || holds(b, a.first), either)
    if (contains(a, b)) assert.ok(sizeOf(a) >= sizeOf(b))
  }
})

test('a network holds its addresses and no others', () => {
  const net = cidr('192.168.4.0/22')
  assert.equal(sizeOf(net), 1024)
  assert.equal(formatAddress(lastOf(net)), '192.168.7.255')
  for (const [text, inside, host] of [
    ['192.168.3.255', false, false],
    ['192.168.4.0', true, false],
    ['192.168.4.1', true, true],
    ['192.168.7.254', true, true],
    ['192.168.7.255', true, false],
    ['192.168.8.0', false, false],
  ] as const) {
    assert.equal(holds(net, address(text)), inside, text)
    assert.equal(isHostAddress(net, address(text)), host, text)
  }
})

test('choosing until a network is full gives each host address once, and never the gateway', () => {
  for (const [text, gateway] of [
    ['10.0.0.0/28', '10.0.0.1'],
    ['10.0.0.0/28', '10.0.0.14'],
    ['10.0.0.240/28', '10.0.0.247'],
    ['255.255.255.240/28', '255.255.255.241'],
  ] as const) {
    const net = cidr(text)
    const taken = new Set<number>()
    for (;;) {
      const chosen = chooseAddress(net, address(gateway), taken)
      if (chosen === null) break
      assert.ok(isHostAddress(net, chosen) && chosen !== address(gateway) && !taken.has(chosen))
      assert.ok(
        [...taken].every((one) => one < chosen),
        'the lowest that is free',
      )
      taken.add(chosen)
    }
    assert.equal(taken.size, sizeOf(net) - 3)
    const [first] = taken
    assert.ok(first !== undefined)
    taken.delete(first)
    assert.equal(chooseAddress(net, address(gateway), taken), first)
  }
})

test('a VPC has a private range between a /8 and a /28', () => {
  for (const text of ['10.0.0.0/8', '10.255.255.240/28', '172.16.0.0/12', '192.168.0.0/16']) {
    assert.ok(isVpcRange(cidr(text)), text)
  }
  for (const text of [
    '10.0.0.0/7',
    '0.0.0.0/0',
    '172.0.0.0/8',
    '172.32.0.0/16',
    '192.168.0.0/15',
    '192.169.0.0/16',
    '192.168.0.0/29',
    '11.0.0.0/16',
  ]) {
    assert.ok(!isVpcRange(parseCidr(text) ?? { first: 0, prefix: 0 }), text)
  }
})

test('a subnet is inside its VPC, beside the others, not too small, with its gateway inside', () => {
  const vpc = cidr('10.0.0.0/16')
  const others = [cidr('10.0.0.0/24'), cidr('10.0.2.0/23')]
  for (const [text, gateway, fault] of [
    ['10.0.1.0/24', '10.0.1.1', null],
    ['10.0.1.240/28', '10.0.1.254', null],
    ['10.0.1.0/29', '10.0.1.1', 'TOO_SMALL'],
    ['10.1.0.0/24', '10.1.0.1', 'OUTSIDE_VPC'],
    ['10.0.0.0/15', '10.0.0.1', 'OUTSIDE_VPC'],
    ['10.0.0.128/25', '10.0.0.129', 'OVERLAP'],
    ['10.0.3.0/24', '10.0.3.1', 'OVERLAP'],
    ['10.0.0.0/16', '10.0.0.1', 'OVERLAP'],
    ['10.0.1.0/24', '10.0.1.0', 'GATEWAY'],
    ['10.0.1.0/24', '10.0.1.255', 'GATEWAY'],
    ['10.0.1.0/24', '10.0.4.1', 'GATEWAY'],
  ] as const) {
    const given = { cidr: cidr(text), gateway: address(gateway) }
    assert.equal(subnetFault(given, vpc, others), fault, text)
  }
})

test('MACs are written in lower case, one for each number', () => {
  assert.equal(macOf(0), 'fa:16:3e:00:00:00')
  assert.equal(macOf(0xab_cd_ef), 'fa:16:3e:ab:cd:ef')
  const next = sequence(3)
  for (let round = 0; round < 500; round++) {
    const serial = next() % 2 ** 24
    const mac = macOf(serial)
    assert.ok(isMac(mac))
    assert.equal(Number.parseInt(mac.slice(9).replaceAll(':', ''), 16), serial)
  }
  for (const text of ['FA:16:3E:00:00:00', 'fa:16:3e:0:0:0', '52:54:00:00:00:00', '']) {
    assert.ok(!isMac(text), text)
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readFacts, type ServerReport, serverIsRight } from './server.ts'

test('a console tells what was found, what was acknowledged, and who it is', () => {
  const console =
    'DISK vda 1073741824 abc\r\nCOUNTER 35\r\nACK 36\r\nNET eth0 192.168.0.5/24\r\n' +
    'READY demo 2\r\nACK 37\r\nACK 3'
  assert.deepEqual(readFacts(console), {
    found: 35,
    acknowledged: 37,
    numbers: 2,
    boots: 2,
    address: '192.168.0.5/24',
  })
  assert.equal(readFacts('').found, null)
})

test('a number that went back, another disk, or another address is not right', () => {
  const right: ServerReport = {
    acknowledged: 35,
    found: 35,
    continued: 40,
    boots: 2,
    addresses: ['192.168.0.5/24', '192.168.0.5/24'],
    bootMs: 5_000,
  }
  assert.ok(serverIsRight(right))
  assert.ok(serverIsRight({ ...right, found: 36 }))
  for (const wrong of [
    { found: 34 },
    { acknowledged: 0 },
    { continued: 35 },
    { boots: 1 },
    { addresses: ['192.168.0.5/24', '192.168.0.6/24'] as const },
    { addresses: ['', ''] as const },
  ]) {
    assert.ok(!serverIsRight({ ...right, ...wrong }), JSON.stringify(wrong))
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nameDisks, nextDevice, normaliseDevice } from './server-disks.ts'

test('names of disks are taken in every way that clients write them', () => {
  for (const text of ['/dev/vdc', '/dev/sdc', '/dev/xvdc', 'vdc', 'sdc', 'xvdc']) {
    assert.equal(normaliseDevice(text), '/dev/vdc', text)
  }
  for (const text of ['', 'c', '/dev/hdc', '/dev/vdC', '/dev/vdaa', 'dev/vdc', '/dev/vd', 'vdc ']) {
    assert.equal(normaliseDevice(text), null, text)
  }
})

test('the next name is the first free one, and never that of the root disk', () => {
  assert.equal(nextDevice(new Set()), '/dev/vdb')
  assert.equal(nextDevice(new Set(['/dev/vda', '/dev/vdb', '/dev/vdd'])), '/dev/vdc')
  const all = Array.from('abcdefghijklmnopqrstuvwxyz').map((letter) => `/dev/vd${letter}`)
  assert.equal(nextDevice(new Set(all)), null)
})

const disk = (bootIndex: number | null = null, device: string | null = null) => ({
  bootIndex,
  device,
})

test('disks are named by boot index, then in order; the root disk is the first', () => {
  assert.deepEqual(nameDisks([disk(), disk(2), disk(0), disk(1), disk()]), {
    ok: true,
    devices: ['/dev/vdd', '/dev/vdc', '/dev/vda', '/dev/vdb', '/dev/vde'],
  })
})

test('a name that is asked for is kept, and nobody else gets it', () => {
  assert.deepEqual(nameDisks([disk(0, '/dev/sda'), disk(null, 'sdb'), disk(), disk()]), {
    ok: true,
    devices: ['/dev/vda', '/dev/vdb', '/dev/vdc', '/dev/vdd'],
  })
  assert.deepEqual(nameDisks([disk(0), disk(), disk(null, '/dev/vdb')]), {
    ok: true,
    devices: ['/dev/vda', '/dev/vdc', '/dev/vdb'],
  })
})

test('no root disk, two of them, a name twice, or none at all is refused', () => {
  const refusal = (...disks: Parameters<typeof nameDisks>[0]) => {
    const decision = nameDisks(disks)
    return decision.ok ? null : decision.refusal
  }
  assert.equal(refusal(), 'NO_ROOT_DISK')
  assert.equal(refusal(disk(), disk(1)), 'NO_ROOT_DISK')
  assert.equal(refusal(disk(0), disk(0)), 'TWO_ROOT_DISKS')
  assert.equal(refusal(disk(0), disk(null, 'vdb'), disk(null, '/dev/sdb')), 'DEVICE_TAKEN')
  assert.equal(refusal(disk(0), disk(null, '/dev/vda')), 'DEVICE_TAKEN')
  assert.equal(refusal(disk(0), disk(null, 'floppy')), 'DEVICE_INVALID')
})

test('names are never given twice', () => {
  const wish = fc.record({
    bootIndex: fc.constantFrom(null, 1, 2, 3),
    device: fc.constantFrom(null, null, '/dev/vdb', 'sdc', '/dev/vdq'),
  })
  fc.assert(
    fc.property(fc.array(wish, { maxLength: 24 }), (wishes) => {
      const decision = nameDisks([...wishes, disk(0)])
      if (!decision.ok) return
      assert.equal(new Set(decision.devices).size, wishes.length + 1)
      assert.equal(decision.devices.at(-1), '/dev/vda')
    }),
  )
})

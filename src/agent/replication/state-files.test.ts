import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { crc32c } from '@node-rs/crc32'
import fc from 'fast-check'
import { EpochFile } from './session/epoch-file.ts'
import { IntentBitmap } from './writer/intent-bitmap.ts'
import { REGION_BYTES, RegionSet } from './copy/regions.ts'
import { RunFile } from './run-file.ts'
import { type StoredSession, unopened } from './session/session.ts'

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-state-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const state = (epoch: number): StoredSession => {
  const stored = unopened('s')
  return { ...stored, record: { ...stored.record, epoch }, clean: epoch }
}

describe('the epoch file', () => {
  test('keeps the newest state over any number of writes', async (t) => {
    const path = join(directory(t), 'epoch')
    for (let epoch = 1; epoch <= 5; epoch++) {
      const file = await EpochFile.open(path)
      assert.deepEqual(file.found, epoch === 1 ? null : state(epoch - 1))
      await file.write(state(epoch))
      await file.close()
    }
  })

  test('a torn write leaves the state before it, wherever it was torn', async (t) => {
    const path = join(directory(t), 'epoch')
    const file = await EpochFile.open(path)
    await file.write(state(1))
    await file.write(state(2))
    const before = readFileSync(path)
    await file.write(state(3))
    await file.close()
    const after = readFileSync(path)
    for (const torn of [1, 20, 30, 100, 250]) {
      // The slot of the third write: the first `torn` bytes are new, the rest is what was there.
      const mixed = Buffer.from(before)
      const changed = [0, 4096].find(
        (at) => !before.subarray(at, at + 4096).equals(after.subarray(at, at + 4096)),
      )
      assert.ok(changed !== undefined)
      after.copy(mixed, changed, changed, changed + torn)
      writeFileSync(path, mixed)
      const again = await EpochFile.open(path)
      assert.ok(again.found !== null && !again.damaged)
      // With all of its content there the third write is whole: what follows is padding.
      assert.equal(again.found.record.epoch, torn < 100 ? 2 : again.found.record.epoch)
      await again.close()
    }
  })

  test('a file that holds nothing valid is damaged, not new', async (t) => {
    const path = join(directory(t), 'epoch')
    writeFileSync(path, Buffer.alloc(8192, 7))
    const file = await EpochFile.open(path)
    assert.equal(file.found, null)
    assert.equal(file.damaged, true)
    await file.close()
  })
})

describe('the run file', () => {
  for (const map of [true, false]) {
    test(`keeps the last number within one boot, ${map ? 'mapped' : 'written'}`, (t) => {
      const path = join(directory(t), 'run')
      const first = new RunFile(path, 'boot-1', { map })
      assert.equal(first.known, null)
      first.begin(5)
      for (let n = 6; n <= 1000; n++) first.store(n)
      // Not closed: the death of a process closes nothing.
      const second = new RunFile(path, 'boot-1', { map: !map })
      assert.equal(second.known, 1000)
      const other = new RunFile(path, 'boot-2', { map })
      assert.equal(other.known, null, 'of another boot the number is worthless')
      const still = new RunFile(path, 'boot-2', { map })
      assert.equal(still.known, null, 'also after having been looked at')
      other.begin(7)
      assert.equal(new RunFile(path, 'boot-2').known, 7)
      other.forget()
      assert.equal(new RunFile(path, 'boot-2').known, null)
    })
  }
})

describe('the numbers of a run file', () => {
  const SLOTS_AT = 64
  const page = (t: TestContext, last: number): { path: string; bytes: Buffer } => {
    const path = join(directory(t), 'run')
    const file = new RunFile(path, 'boot-1')
    file.begin(100)
    for (let n = 101; n <= last; n++) file.store(n)
    file.close()
    return { path, bytes: readFileSync(path) }
  }
  const knownOf = (path: string, bytes: Buffer): number | null => {
    writeFileSync(path, bytes)
    const file = new RunFile(path, 'boot-1')
    file.close()
    return file.known
  }

  test('one bit that flips is never believed', (t) => {
    for (const last of [100, 101, 102, 1023]) {
      const { path, bytes } = page(t, last)
      for (let bit = 0; bit < 32 * 8; bit++) {
        const damaged = Buffer.from(bytes)
        const at = SLOTS_AT + (bit >> 3)
        damaged[at] = (damaged[at] as number) ^ (1 << (bit & 7))
        const known = knownOf(path, damaged)
        // The store before is what a store that was cut off leaves.
        const good = known === null || known === last || known === Math.max(100, last - 1)
        assert.ok(good, `${last} became ${known} by bit ${bit}`)
      }
    }
  })

  test('bytes that are zero, or of anything else, are not known', (t) => {
    const { path, bytes } = page(t, 500)
    for (const fill of [0, 0xff, 0x40]) {
      assert.equal(knownOf(path, Buffer.from(bytes).fill(fill, SLOTS_AT, SLOTS_AT + 32)), null)
    }
  })

  test('a process that dies between the two stores leaves the number before', (t) => {
    for (const last of [100, 101, 102]) {
      const { path, bytes } = page(t, last)
      const later = page(t, last + 1).bytes
      const torn = Buffer.from(bytes)
      for (const at of [SLOTS_AT, SLOTS_AT + 16]) {
        if (later.readDoubleLE(at) === last + 1) later.copy(torn, at, at, at + 8)
      }
      assert.notDeepEqual(torn, bytes)
      assert.equal(knownOf(path, torn), last)
      // And the next process writes over the torn one first.
      writeFileSync(path, torn)
      const next = new RunFile(path, 'boot-1')
      next.store(last + 1)
      next.close()
      assert.equal(new RunFile(path, 'boot-1').known, last + 1)
    }
  })

  test('a file that begins anew, lower, has nothing of what it held', (t) => {
    const { path } = page(t, 500)
    const file = new RunFile(path, 'boot-1')
    file.begin(7)
    assert.equal(new RunFile(path, 'boot-1').known, 7)
    file.store(8)
    assert.equal(new RunFile(path, 'boot-1', { map: false }).known, 8)
    file.close()
  })

  test('a file of the version before is not known', (t) => {
    const { path, bytes } = page(t, 500)
    const old = Buffer.from(bytes)
    old.writeUInt16BE(1, 4)
    old.writeUInt32BE(crc32c(old.subarray(0, 48)), 48)
    assert.equal(knownOf(path, old), null)
  })
})

describe('region sets', () => {
  test('behave like a set of numbers', () => {
    const operation = fc.tuple(fc.constantFrom('add', 'delete', 'range'), fc.nat(99), fc.nat(300))
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
        const ours = new RegionSet(100)
        const model = new Set<number>()
        for (const [kind, region, more] of operations) {
          if (kind === 'add') {
            assert.equal(ours.add(region), !model.has(region))
            model.add(region)
          } else if (kind === 'delete') {
            assert.equal(ours.delete(region), model.delete(region))
          } else {
            const length = more * 65_536
            ours.addRange(region * REGION_BYTES + 1, length)
            const last = Math.floor((region * REGION_BYTES + length) / REGION_BYTES)
            if (length > 0) for (let r = region; r <= Math.min(last, 99); r++) model.add(r)
          }
        }
        const found: number[] = []
        for (let r = ours.next(0); r >= 0; r = ours.next(r + 1)) found.push(r)
        assert.deepEqual(
          found,
          [...model].sort((a, b) => a - b),
        )
        assert.equal(ours.count, model.size)
      }),
    )
  })
})

const SIZE = 40 * REGION_BYTES

/** A region is set together with its neighbours. */
const FIRST_GROUP = Array.from({ length: 16 }, (_, region) => region)

const bits = (bitmap: IntentBitmap): number[] =>
  Array.from({ length: bitmap.regions }, (_, region) => region).filter((r) => bitmap.has(r))

describe('the intent bitmap', () => {
  test('a region counts as touched only once its bit is durable', async (t) => {
    const bitmap = await IntentBitmap.open(join(directory(t), 'intent'), SIZE, true)
    assert.equal(bitmap.touch(0, 4096), false)
    bitmap.set(0, 4096)
    assert.equal(bitmap.touch(0, 4096), false, 'set in memory is not enough')
    const saving = bitmap.save()
    assert.equal(bitmap.touch(0, 4096), false)
    await saving
    assert.equal(bitmap.touch(0, 4096), true)
    assert.equal(bitmap.touch(15 * REGION_BYTES, 1), true, 'neighbours are set with it')
    assert.equal(bitmap.touch(16 * REGION_BYTES - 1, 2), false, 'region 16 is not set')
    await bitmap.close()
  })

  test('whatever was saved is set after a crash; only clearing rounds take it away', async (t) => {
    const base = directory(t)
    let run = 0
    const step = fc.oneof(
      fc.record({ kind: fc.constant('set' as const), region: fc.nat(39) }),
      fc.record({ kind: fc.constant('round' as const), region: fc.nat(39) }),
      fc.record({ kind: fc.constant('crash' as const), region: fc.nat(39) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const path = join(base, `intent-${run++}`)
        let bitmap = await IntentBitmap.open(path, SIZE, true)
        const saved = new Set<number>()
        let sinceRound = new Set<number>()
        for (const { kind, region } of steps) {
          if (kind === 'set') {
            bitmap.set(region * REGION_BYTES, 1)
            await bitmap.save()
            assert.ok(bitmap.touch(region * REGION_BYTES, 1))
            saved.add(region)
            sinceRound.add(region)
          } else if (kind === 'round') {
            bitmap.beginRound()
            sinceRound = new Set()
            bitmap.set(region * REGION_BYTES, 1)
            await bitmap.save()
            saved.add(region)
            bitmap.endRound()
            for (const r of saved) if (r !== region && !bitmap.has(r)) saved.delete(r)
            assert.ok(bitmap.has(region), 'touched during the round')
          } else {
            await bitmap.close()
            bitmap = await IntentBitmap.open(path, SIZE, false)
            for (const r of saved) assert.ok(bitmap.has(r), `region ${r} survives`)
          }
        }
        await bitmap.close()
      }),
      { numRuns: 40 },
    )
  })

  test('a torn page write never loses a bit that was relied on', async (t) => {
    const path = join(directory(t), 'intent')
    const bitmap = await IntentBitmap.open(path, SIZE, true)
    for (const region of [1, 5, 9]) {
      bitmap.set(region * REGION_BYTES, 1)
      await bitmap.save()
    }
    const before = readFileSync(path)
    bitmap.set(30 * REGION_BYTES, 1)
    await bitmap.save()
    await bitmap.close()
    const after = readFileSync(path)
    for (let torn = 0; torn <= 64; torn++) {
      const mixed = Buffer.from(before)
      const slot = before.subarray(0, 4096).equals(after.subarray(0, 4096)) ? 4096 : 0
      after.copy(mixed, slot, slot, slot + torn)
      writeFileSync(path, mixed)
      const again = await IntentBitmap.open(path, SIZE, false)
      for (const region of [1, 5, 9]) assert.ok(again.has(region), `torn at ${torn}`)
      await again.close()
    }
  })

  test('a lost or damaged bitmap means all regions', async (t) => {
    const path = join(directory(t), 'intent')
    const lost = await IntentBitmap.open(path, SIZE, false)
    assert.equal(lost.count, 40)
    await lost.close()
    writeFileSync(path, Buffer.alloc(8192, 0x5a))
    const damaged = await IntentBitmap.open(path, SIZE, false)
    assert.equal(damaged.count, 40)
    await damaged.close()
    truncateSync(path, 100)
    const short = await IntentBitmap.open(path, SIZE, false)
    assert.equal(short.count, 40)
    await short.close()
  })

  test('a volume that grows keeps its bits, and the new part is clean', async (t) => {
    const path = join(directory(t), 'intent')
    const bitmap = await IntentBitmap.open(path, SIZE, true)
    bitmap.set(3 * REGION_BYTES, 1)
    bitmap.grow(SIZE * 2)
    await bitmap.save()
    assert.deepEqual(bits(bitmap), FIRST_GROUP)
    await bitmap.close()
    const again = await IntentBitmap.open(path, SIZE * 2, false)
    assert.deepEqual(bits(again), FIRST_GROUP)
    await again.close()
  })
})

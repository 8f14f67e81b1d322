/** What a disk does to the files of a session that no crash does: bits that change by themselves, ends that are missing, room that is not there. */
import assert from 'node:assert/strict'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { crc32c } from '@node-rs/crc32'
import { withFilesUpTo } from '../../../test/support/file-limit.ts'
import { createLog } from '#base/log.ts'
import { openFileVolumeStore } from '../volumes/file/file-volume-store.ts'
import { ChangeMap, decodeChangeHead, encodeChangeHead } from './copy/change-map.ts'
import { REGION_BYTES } from './copy/regions.ts'
import { Members } from './members.ts'
import { NO_MEMBERS } from './members-file.ts'
import { decodeEpochSlot, encodeEpochSlot, EpochFile } from './session/epoch-file.ts'
import { type StoredSession, unopened } from './session/session.ts'
import { decodeIntentPage, encodeIntentPage, IntentBitmap } from './writer/intent-bitmap.ts'

const PAGE = 4096
const SIZE = 40 * REGION_BYTES

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-damage-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const state = (epoch: number): StoredSession => {
  const stored = unopened('s')
  return { ...stored, record: { ...stored.record, epoch }, clean: epoch }
}

/** `bytes` with one bit turned over. */
function flipped(bytes: Buffer, bit: number): Buffer {
  const damaged = Buffer.from(bytes)
  damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
  return damaged
}

describe('every bit of a record', () => {
  test('of an epoch slot is checked, but for the padding, which means nothing', () => {
    const slot = encodeEpochSlot(state(7), 3)
    const used = 24 + slot.readUInt32BE(16)
    const read = (bytes: Buffer) => decodeEpochSlot(bytes)
    for (let bit = 0; bit < used * 8; bit++) assert.equal(read(flipped(slot, bit)), null, `${bit}`)
    for (let bit = used * 8; bit < PAGE * 8; bit += 8) {
      assert.deepEqual(read(flipped(slot, bit))?.stored, state(7))
    }
  })

  test('of a page of the intent bitmap is checked', () => {
    const bits = new Uint8Array(PAGE - 24).fill(0x5a)
    const page = encodeIntentPage(1, 9, bits)
    assert.ok(decodeIntentPage(page, 1) !== null)
    for (let bit = 0; bit < PAGE * 8; bit++) {
      assert.equal(decodeIntentPage(flipped(page, bit), 1), null, `${bit}`)
    }
  })

  test('of the head of a change map is checked', () => {
    const head = encodeChangeHead({ base: 7, sizeBytes: SIZE, bootId: 'boot-1' })
    assert.ok(decodeChangeHead(head) !== null)
    for (let bit = 0; bit < head.length * 8; bit++) {
      assert.equal(decodeChangeHead(flipped(head, bit)), null, `${bit}`)
    }
  })
})

describe('a file that ends too early', () => {
  test('is never an older epoch: without its second slot an epoch file is damaged', async (t) => {
    const path = join(directory(t), 'epoch')
    const file = await EpochFile.open(path)
    for (let epoch = 1; epoch <= 4; epoch++) await file.write(state(epoch))
    await file.close()
    const whole = readFileSync(path)
    for (let length = 0; length < whole.length; length += 64) {
      writeFileSync(path, whole.subarray(0, length))
      const again = await EpochFile.open(path)
      const found = again.found?.record.epoch ?? null
      // Remains of the second slot are what a torn write leaves, and then the first one counts.
      const torn = length > PAGE && found === 3
      assert.ok(again.damaged || found === null || found === 4 || torn, `${length}: ${found}`)
      if (length === PAGE) assert.ok(again.damaged)
      await again.close()
    }
  })

  test('is a damaged change map, whatever of it is left', (t) => {
    const path = join(directory(t), 'changes')
    const options = { path, sizeBytes: SIZE, bootId: 'boot-1' }
    new ChangeMap({ ...options, fresh: true }).close()
    const whole = readFileSync(path)
    for (let length = 0; length < whole.length; length += 61) {
      writeFileSync(path, whole.subarray(0, length))
      const map = new ChangeMap({ ...options, fresh: false })
      assert.equal(map.trust(0), 'damaged', `${length}`)
      map.close()
    }
  })
})

describe('the epoch file', () => {
  test('has room for both slots from the beginning on: later writes go through on a full disk', async (t) => {
    const path = join(directory(t), 'epoch')
    const file = await EpochFile.open(path)
    assert.equal(readFileSync(path).length, 2 * PAGE)
    await withFilesUpTo(2 * PAGE, async () => {
      for (let epoch = 1; epoch <= 3; epoch++) await file.write(state(epoch))
    })
    await file.close()
    const again = await EpochFile.open(path)
    assert.equal(again.found?.record.epoch, 3)
    await again.close()
  })

  test('that has no room for both is not begun, and one that is there already is read', async (t) => {
    const path = join(directory(t), 'epoch')
    await withFilesUpTo(PAGE, async () => {
      await assert.rejects(EpochFile.open(path), { code: 'EFBIG' })
    })
    rmSync(path)
    const file = await EpochFile.open(path)
    await file.write(state(1))
    await file.close()
    // As those were begun that had no room for the second slot yet.
    truncateSync(path, PAGE)
    await withFilesUpTo(PAGE, async () => {
      const again = await EpochFile.open(path)
      assert.equal(again.found?.record.epoch, 1)
      // Half a record is an error, not an epoch.
      await assert.rejects(again.write(state(2)), { code: 'EFBIG' })
      await again.close()
    })
  })

  test('is never an older epoch from its second write on: a slot that is gone is damage', async (t) => {
    const path = join(directory(t), 'epoch')
    for (let epoch = 1; epoch <= 3; epoch++) {
      const file = await EpochFile.open(path)
      await file.write(state(epoch))
      await file.close()
      const whole = readFileSync(path)
      for (const at of [0, PAGE]) {
        writeFileSync(path, Buffer.from(whole).fill(0, at, at + PAGE))
        const again = await EpochFile.open(path)
        assert.ok(again.damaged || again.found?.record.epoch === epoch, `${epoch}, ${at}`)
        assert.ok(again.damaged || epoch === 1)
        await again.close()
      }
      writeFileSync(path, whole)
    }
  })

  test('is never an older epoch because the newest is of a later version: nothing is concluded then', async (t) => {
    const path = join(directory(t), 'epoch')
    const file = await EpochFile.open(path)
    for (let epoch = 1; epoch <= 3; epoch++) await file.write(state(epoch))
    await file.close()
    const written = readFileSync(path)
    const later = [
      (slot: Buffer) => void slot.writeUInt16BE(2, 4),
      (slot: Buffer) => void slot.write('sealed', slot.indexOf('closed'), 'latin1'),
    ]
    for (const change of later) {
      for (const at of [0, PAGE]) {
        const whole = Buffer.from(written)
        const slot = whole.subarray(at, at + PAGE)
        change(slot)
        slot.writeUInt32BE(
          crc32c(slot.subarray(24, 24 + slot.readUInt32BE(16)), crc32c(slot.subarray(0, 20))),
          20,
        )
        writeFileSync(path, whole)
        const again = await EpochFile.open(path)
        assert.equal(again.damaged, true)
        await again.close()
      }
    }
  })

  test('that was not taken whole is not taken: what was before it counts', async (t) => {
    const path = join(directory(t), 'epoch')
    const file = await EpochFile.open(path)
    await file.write(state(1))
    // The first write went into both slots; the second is torn in the first one's first kilobyte, which holds all of the record but for its end.
    await withFilesUpTo(100, async () => {
      await assert.rejects(file.write(state(2)), { code: 'EFBIG' })
    })
    await file.close()
    const again = await EpochFile.open(path)
    assert.equal(again.found?.record.epoch, 1)
    await again.close()
  })
})

describe('the intent bitmap', () => {
  const write = async (bitmap: IntentBitmap, region: number) => {
    bitmap.set(region * REGION_BYTES, 1)
    await bitmap.save()
  }

  test('a slot that lost a bit may have been the newer one: every region counts as set', async (t) => {
    const path = join(directory(t), 'intent')
    const bitmap = await IntentBitmap.open(path, SIZE, true)
    await write(bitmap, 1)
    await write(bitmap, 20)
    await bitmap.close()
    const whole = readFileSync(path)
    for (let byte = 0; byte < whole.length; byte += 97) {
      writeFileSync(path, flipped(whole, byte * 8 + (byte % 8)))
      const again = await IntentBitmap.open(path, SIZE, false)
      for (const region of [1, 20]) assert.ok(again.has(region), `${byte}`)
      await again.close()
    }
  })

  test('a slot that is empty or behind the end of the file may have been the newer one: every region counts as set', async (t) => {
    for (const saves of [1, 2, 3]) {
      const path = join(directory(t), 'intent')
      const bitmap = await IntentBitmap.open(path, SIZE, true)
      for (let save = 0; save < saves; save++) await write(bitmap, 1 + 20 * (save % 2))
      await bitmap.close()
      const whole = readFileSync(path)
      const lost = [
        whole.subarray(0, PAGE),
        Buffer.from(whole).fill(0, PAGE),
        Buffer.from(whole).fill(0, 0, PAGE),
      ]
      for (const bytes of lost) {
        writeFileSync(path, bytes)
        const again = await IntentBitmap.open(path, SIZE, false)
        assert.equal(again.count, 40, `${saves} saves`)
        await again.close()
      }
    }
  })

  test('a first write whose second half is missing, and a page that began with one slot, are read', async (t) => {
    const path = join(directory(t), 'intent')
    await (await IntentBitmap.open(path, SIZE, true)).close()
    truncateSync(path, PAGE)
    const again = await IntentBitmap.open(path, SIZE, false)
    assert.equal(again.count, 0)
    await write(again, 1)
    await again.close()
    const later = await IntentBitmap.open(path, SIZE, false)
    assert.deepEqual([later.has(1), later.has(20)], [true, false])
    await later.close()
  })

  test('a save that fails leaves alone what the disk is known to hold, and may be repeated', async (t) => {
    const path = join(directory(t), 'intent')
    const bitmap = await IntentBitmap.open(path, SIZE, true)
    // The first save went into both slots; the second one goes over the first slot, and is torn there.
    const before = readFileSync(path)
    assert.equal(before.length, 2 * PAGE)
    bitmap.set(REGION_BYTES, 1)
    await withFilesUpTo(10, async () => {
      for (let attempt = 0; attempt < 3; attempt++) {
        await assert.rejects(bitmap.save(), { code: 'EFBIG' })
        assert.ok(
          readFileSync(path).subarray(PAGE).equals(before.subarray(PAGE)),
          `attempt ${attempt}`,
        )
        assert.equal(bitmap.touch(REGION_BYTES, 1), false)
      }
      // Whoever joins while one is failing is not told of that one for ever.
      const [one, two] = await Promise.allSettled([bitmap.save(), bitmap.save()])
      assert.deepEqual([one.status, two.status], ['rejected', 'rejected'])
    })
    await Promise.all([bitmap.save(), bitmap.save()])
    assert.equal(bitmap.touch(REGION_BYTES, 1), true)
    await bitmap.close()
    const again = await IntentBitmap.open(path, SIZE, false)
    assert.ok(again.has(1))
    assert.equal(again.has(20), false)
    await again.close()
  })
})

test('a member whose change map cannot be opened leaves nothing open, and is opened once it can', async (t) => {
  const base = directory(t)
  const log = createLog('test', 'silent')
  const volumes = await openFileVolumeStore({
    directory: join(base, 'volumes'),
    log,
    wallMs: () => 1,
    bootDirectories: [],
  })
  t.after(() => volumes.close())
  await volumes.create('v', SIZE, { mode: 'standalone' })
  await volumes.open('v')
  const stored = {
    index: 1,
    pair: 'p',
    volumes: { az1: 'v' },
    size_bytes: SIZE,
    replica_blank: false,
    joined: true,
  }
  const found = { ...NO_MEMBERS, members: [stored] }
  const parts = { session: 's', site: 'az1', volumes, directory: base, bootId: 'boot-1', found }
  const members = new Members(parts)
  // A folder in its place.
  mkdirSync(join(base, 'changes-1'))
  const before = readdirSync('/proc/self/fd').length
  await assert.rejects(members.openAll(), { code: 'EISDIR' })
  assert.equal(readdirSync('/proc/self/fd').length, before)
  rmdirSync(join(base, 'changes-1'))
  await members.openAll()
  assert.deepEqual(members.indexes, [1])
  await members.closeFiles()
})

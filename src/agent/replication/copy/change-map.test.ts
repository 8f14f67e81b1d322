import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { BlockSet, blockCount } from './block-set.ts'
import { ChangeMap, decodeChangeHead, encodeChangeHead } from './change-map.ts'

const MIB = 1024 * 1024
const SIZE = 64 * MIB

function mapPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-changes-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return join(directory, 'changes-1')
}

const open = (path: string, over: Partial<ConstructorParameters<typeof ChangeMap>[0]> = {}) =>
  new ChangeMap({ path, sizeBytes: SIZE, bootId: 'boot-1', fresh: false, ...over })

const marked = (map: ChangeMap, sizeBytes = SIZE): number[] => {
  const set = new BlockSet(blockCount(sizeBytes))
  map.addTo(set)
  const found: number[] = []
  for (let block = set.next(0); block >= 0; block = set.next(block + 1)) found.push(block)
  assert.equal(found.length, set.count)
  return found
}

describe('the change map', () => {
  test('says that the disk has no room for it', () => {
    assert.throws(
      () => open('/dev/full', { fresh: true }),
      (error) => isFault(error, VOLUME_NO_SPACE),
    )
  })

  for (const map of [true, false]) {
    const how = map ? 'mapped' : 'written'
    test(`names every marked block after the death of the process, ${how}`, (t) => {
      const path = mapPath(t)
      const first = open(path, { fresh: true, map })
      first.clear(7)
      first.mark(0, 1)
      first.mark(BLOCK_BYTES * 3 - 1, 2)
      first.mark(SIZE - 1, 1)
      first.mark(4096, 0)
      // Not closed: the death of a process closes nothing.
      const second = open(path, { map: !map })
      assert.equal(second.trust(7), 'exact')
      assert.deepEqual(marked(second), [0, 2, 3, blockCount(SIZE) - 1])
      assert.equal(second.has(2), true)
      assert.equal(second.has(4), false)
      first.close()
      second.close()
    })

    test(`any ranges are marked, no more and no less, ${how}`, (t) => {
      const path = mapPath(t)
      const made = open(path, { fresh: true, map })
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 3 * MIB })), {
            maxLength: 20,
          }),
          (ranges) => {
            made.clear(1)
            const expected = new Set<number>()
            for (const [offset, wanted] of ranges) {
              const length = Math.min(wanted, SIZE - offset)
              made.mark(offset, length)
              for (
                let block = Math.floor(offset / BLOCK_BYTES);
                block * BLOCK_BYTES < offset + length;
                block++
              )
                expected.add(block)
            }
            assert.deepEqual(
              marked(made),
              [...expected].sort((a, b) => a - b),
            )
          },
        ),
        { numRuns: 50 },
      )
      made.close()
    })
  }

  test('after another boot it is known to be incomplete, until it is cleared', (t) => {
    const path = mapPath(t)
    const first = open(path, { fresh: true })
    first.clear(3)
    first.mark(0, 1)
    first.close()
    const second = open(path, { bootId: 'boot-2' })
    assert.equal(second.trust(3), 'other_boot')
    second.mark(BLOCK_BYTES, 1)
    second.close()
    assert.equal(open(path, { bootId: 'boot-2' }).trust(3), 'other_boot')
    const third = open(path, { bootId: 'boot-2' })
    third.clear(4)
    assert.deepEqual(marked(third), [])
    assert.equal(open(path, { bootId: 'boot-2' }).trust(4), 'exact')
  })

  test('a file that should be there and is not counts as damaged', (t) => {
    const map = open(mapPath(t))
    assert.equal(map.trust(0), 'damaged')
    map.close()
  })

  test('a damaged or shortened file counts as damaged, also at the start after', (t) => {
    const path = mapPath(t)
    open(path, { fresh: true }).close()
    const whole = readFileSync(path)
    for (const at of [0, 5, 9, 20, 30, 65]) {
      const broken = Buffer.from(whole)
      broken[at] = (broken[at] as number) ^ 1
      writeFileSync(path, broken)
      for (let again = 0; again < 2; again++) {
        const map = open(path)
        assert.equal(map.trust(9), 'damaged', `byte ${at}`)
        map.close()
      }
    }
    writeFileSync(path, whole)
    truncateSync(path, 4096)
    for (let again = 0; again < 2; again++) {
      const map = open(path)
      // Filled up with zeroes at the first start: nothing tells it from a whole one but that it was noted.
      assert.equal(map.trust(9), 'damaged')
      map.close()
    }
  })

  test('a clearing that was cut off never looks as if nothing had changed', (t) => {
    const path = mapPath(t)
    const map = open(path, { fresh: true })
    map.clear(3)
    map.mark(0, SIZE)
    const before = readFileSync(path)
    map.clear(4)
    const after = readFileSync(path)
    map.close()
    // Its stores in order: the header, byte by byte, then the bits.
    for (let cut = 0; cut < before.length; cut = cut < 80 ? cut + 1 : cut + 97) {
      const torn = Buffer.concat([after.subarray(0, cut), before.subarray(cut)])
      writeFileSync(path, torn)
      const found = open(path)
      const all = marked(found).length === blockCount(SIZE)
      if (found.trust(3) === 'exact') assert.ok(all, `exact for the old base, cut at ${cut}`)
      if (found.base === 4 && found.trust(4) === 'exact') assert.ok(cut >= 16)
      found.close()
    }
  })

  test('a base that is older than asked for is good, a newer one is not', (t) => {
    const map = open(mapPath(t), { fresh: true })
    map.clear(5)
    assert.equal(map.trust(9), 'exact')
    assert.equal(map.trust(5), 'exact')
    assert.equal(map.trust(4), 'damaged')
    map.close()
  })

  for (const map of [true, false]) {
    test(`grows and keeps its marks, ${map ? 'mapped' : 'written'}`, (t) => {
      const path = mapPath(t)
      const made = open(path, { fresh: true, map })
      made.mark(MIB, 1)
      assert.throws(() => made.mark(SIZE, 1))
      let size = SIZE
      for (let step = 0; step < 12; step++) {
        size *= 2
        made.grow(size)
        made.mark(size - 1, 1)
      }
      const expected = [
        16,
        ...Array.from({ length: 12 }, (_, n) => blockCount(SIZE * 2 ** (n + 1)) - 1),
      ]
      assert.deepEqual(marked(made, size), expected)
      const again = open(path, { sizeBytes: SIZE, map: !map })
      assert.equal(again.trust(0), 'exact')
      assert.deepEqual(marked(again, size), expected)
      made.close()
      again.close()
    })
  }

  test('all of it can be marked, and told in parts', (t) => {
    const map = open(mapPath(t), { fresh: true })
    map.mark(BLOCK_BYTES * 9, 1)
    assert.deepEqual(map.slice(8, 16), Buffer.of(2, 0))
    map.markAll()
    assert.equal(marked(map).length, blockCount(SIZE))
    map.close()
  })

  test('the header reads back as it was written', () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.nat(),
        fc.stringMatching(/^[0-9a-f-]{0,40}$/),
        (base, sizeBytes, bootId) => {
          assert.deepEqual(decodeChangeHead(encodeChangeHead({ base, sizeBytes, bootId })), {
            base,
            sizeBytes,
            bootId,
          })
        },
      ),
    )
  })
})

describe('a set of blocks', () => {
  test('behaves like a set of numbers', () => {
    const step = fc.tuple(
      fc.constantFrom('add', 'delete', 'bits'),
      fc.nat(299),
      fc.integer({ min: 1, max: 120 }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.nat(320), (steps, from) => {
        const set = new BlockSet(300)
        const model = new Set<number>()
        for (const [what, first, length] of steps) {
          const end = Math.min(300, first + length)
          if (what === 'add') set.addBlocks(first, first + length)
          else if (what === 'delete') set.deleteBlocks(first, first + length)
          else {
            const at = first - (first % 8)
            set.addBits(Uint8Array.of(length), at)
            for (let bit = 0; bit < 8; bit++) {
              if (((length >> bit) & 1) === 1 && at + bit < 300) model.add(at + bit)
            }
            continue
          }
          for (let block = first; block < end; block++) {
            if (what === 'add') model.add(block)
            else model.delete(block)
          }
        }
        const sorted = [...model].sort((a, b) => a - b)
        assert.equal(set.count, model.size)
        assert.equal(set.next(from), sorted.find((block) => block >= from) ?? -1)
        const run = set.next(0)
        if (run >= 0) {
          let end = run
          while (model.has(end)) end++
          assert.equal(set.runEnd(run, 1000), end)
        }
        set.grow(400)
        set.add(399)
        assert.ok(set.has(399) && set.count === model.size + 1)
      }),
    )
  })
})

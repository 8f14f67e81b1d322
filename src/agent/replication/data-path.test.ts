import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { FRAME_LENGTH_MAX } from '#wire/link/frame.ts'
import { nextTurn, SECTOR_BYTES } from './data-path.test-kit.ts'
import { KIB, SIZES, World } from './data-path-world.test-kit.ts'

/** Mulberry32. */
function seeded(seed: number): () => number {
  let state = seed * 0x9e3779b9
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

async function run(seed: number): Promise<World> {
  const random = seeded(seed)
  const upTo = (n: number) => Math.floor(random() * n)
  // A third of them has a log that is soon too long, a third long writes and a link that lags behind.
  const kind = seed % 3
  const lags = kind === 2
  const world = new World(random, (kind === 1 ? 64 : lags ? 2048 : 512) * KIB, lags ? 64 : 1)
  for (let step = 0; step < 120; step++) {
    const member = random() < 0.7 ? 0 : 1
    const sectors = Math.floor((SIZES[member] as number) / SECTOR_BYTES)
    const most = Math.min(!lags && random() < 0.9 ? 40 : 150, Math.floor(sectors / 3))
    const length = (1 + upTo(most)) * SECTOR_BYTES
    // Half of it into a place that others use as well, the rest anywhere, also over the border of two regions.
    const place = random()
    const anywhere = upTo(sectors) * SECTOR_BYTES
    const wanted =
      place < 0.5 ? upTo(200) * SECTOR_BYTES : place < 0.6 ? 4 * KIB * KIB - 2048 : anywhere
    const offset = Math.max(0, Math.min(wanted, sectors * SECTOR_BYTES - 3 * length))
    const fua = random() < 0.15
    const what = random()
    if (what < 0.45) world.write(member, offset, [length], fua)
    else if (what < 0.5) world.write(member, offset, [length, length, length], fua)
    else if (what < 0.56) world.zero(member, offset, length, fua)
    else if (what < 0.565) world.zero(0, 0, 3 * FRAME_LENGTH_MAX + 100 * KIB, fua)
    else if (what < 0.62) world.flush(member)
    else if (what < 0.7) world.read(member, offset, length)
    else if (what < 0.85) world.pump(upTo(300 * KIB))
    else if (what < 0.88) world.cut()
    else if (what < 0.91) world.goAlone()
    else if (what < 0.94 && world.phase === 'unlinked') world.connect()
    else await nextTurn()
    if (random() < 0.2) await nextTurn()
    assert.deepEqual(world.broken, [], `seed ${seed}, step ${step}`)
  }
  await world.settle()
  return world
}

describe('the data path', () => {
  test('keeps its promises while clients write and the link comes and goes', async () => {
    const totals = { answers: 0, rises: 0, logsDropped: 0 }
    for (let seed = 1; seed <= 20; seed++) {
      const { answers, rises, logsDropped } = await run(seed)
      totals.answers += answers
      totals.rises += rises
      totals.logsDropped += logsDropped
    }
    // What it is made to see has been there.
    assert.ok(
      totals.answers > 1_000 && totals.rises > 8 && totals.logsDropped > 3,
      JSON.stringify(totals),
    )
  })

  test('has a write in parts at the replica whole or not at all, wherever the link is cut', async () => {
    const parts = [3 * KIB, KIB, 2 * KIB]
    const seen = new Set<number>()
    for (let bytes = 0; bytes < 7 * KIB; bytes += 500) {
      const world = new World(() => 0)
      world.write(0, 0, parts, false)
      for (let turn = 0; turn < 20; turn++) await nextTurn()
      world.pump(bytes)
      await nextTurn()
      const there = parts.filter((_, i) => world.b.volumes[0]?.saw(i + 1)).length
      seen.add(there)
      assert.ok(there === 0 || there === parts.length, `${there} parts after ${bytes} bytes`)
    }
    assert.equal(seen.size, 2)
  })
})

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { BLOCK_BYTES } from '#wire/link/frame.ts'
import { COPY_STEP_BYTES, CopyPace, WINDOW_MAX, WINDOW_MIN } from './copy-pace.ts'
import { CopyTodo } from './copy-todo.ts'

const BLOCKS = 200
const SIZE = BLOCKS * BLOCK_BYTES - 4096

/** What is left by a model of two sets of numbers. */
class Model {
  readonly send = new Set<number>()
  readonly compare = new Set<number>()

  mark(first: number, end: number, compare: boolean): void {
    for (let block = first; block < Math.min(end, BLOCKS); block++) {
      if (!compare) {
        this.send.add(block)
        this.compare.delete(block)
      } else if (!this.send.has(block)) this.compare.add(block)
    }
  }
}

function same(todo: CopyTodo, model: Model): void {
  assert.equal(todo.count, model.send.size + model.compare.size)
  for (let block = 0; block < BLOCKS; block++) {
    assert.equal(todo.send.has(block), model.send.has(block))
    assert.equal(todo.compare.has(block), model.compare.has(block))
  }
}

const step = fc.tuple(
  fc.constantFrom('send', 'compare', 'bits', 'regions', 'take', 'put back'),
  fc.nat(BLOCKS - 1),
  fc.integer({ min: 1, max: 80 }),
)

describe('what is left to copy', () => {
  test('a block is in one set at most, and what is known to have changed is never compared', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const todo = new CopyTodo(SIZE)
        const model = new Model()
        const taken: ReturnType<CopyTodo['take']>[] = []
        for (const [what, first, count] of steps) {
          const end = Math.min(first + count, BLOCKS)
          const offset = first * BLOCK_BYTES
          const length = Math.min(end * BLOCK_BYTES, SIZE) - offset
          if (what === 'send') todo.sendRange(offset, length)
          else if (what === 'compare') todo.compareRange(offset, length)
          else if (what === 'bits') {
            const bits = Buffer.alloc(32)
            bits[first >> 3] = count
            todo.addBits(0, bits, Buffer.alloc(1))
            for (let bit = 0; bit < 8; bit++) {
              const block = (first & ~7) + bit
              if (((count >> bit) & 1) === 1) model.mark(block, block + 1, false)
            }
          } else if (what === 'regions') {
            todo.addBits(0, Buffer.alloc(32), Buffer.of(count & 0x0f))
            for (let region = 0; region < 4; region++) {
              if (((count >> region) & 1) === 1) model.mark(region * 64, region * 64 + 64, true)
            }
          } else if (what === 'take') {
            const run = todo.take(offset, count * BLOCK_BYTES)
            const all = [...model.send, ...model.compare].filter((block) => block >= first)
            if (run === null) assert.equal(all.length, 0)
            else {
              assert.equal(run.offset, Math.min(...all) * BLOCK_BYTES)
              assert.ok(run.length <= count * BLOCK_BYTES && run.offset + run.length <= SIZE)
              const set = run.compare ? model.compare : model.send
              for (let at = run.offset; at < run.offset + run.length; at += BLOCK_BYTES) {
                assert.ok(set.delete(at / BLOCK_BYTES))
              }
              taken.push(run)
            }
          } else {
            const run = taken.pop()
            if (run === undefined || run === null) continue
            todo.putBack(run)
            const from = run.offset / BLOCK_BYTES
            model.mark(from, from + Math.ceil(run.length / BLOCK_BYTES), run.compare)
          }
          if (what === 'send' || what === 'compare') model.mark(first, end, what === 'compare')
          same(todo, model)
        }
      }),
      { numRuns: 200 },
    )
  })

  test('a volume that has grown can be copied in its new part', () => {
    const todo = new CopyTodo(SIZE)
    todo.compareAll()
    todo.grow(SIZE + 64 * BLOCK_BYTES)
    todo.sendRange(SIZE + 63 * BLOCK_BYTES, BLOCK_BYTES)
    assert.equal(todo.send.count, 2)
    assert.equal(todo.compare.count, BLOCKS)
  })
})

/** A link of so many bytes per millisecond, in simulated time. Returns the longest wait of a client's write behind the copy, ms. */
function copyOver(bytesPerMs: number, clients: boolean, forMs: number) {
  const pace = new CopyPace()
  let seq = 0
  let sent = 0
  let longest = 0
  let freeMs = 0
  const arriving: { seq: number; atMs: number }[] = []
  for (let now = 0; now < forMs; now++) {
    if (clients) pace.foreground(now)
    while (arriving.length > 0 && (arriving[0]?.atMs ?? 0) <= now) {
      pace.acknowledged((arriving.shift() as { seq: number }).seq, now)
    }
    while (pace.open) {
      const bytes = pace.stepBytes(now)
      freeMs = Math.max(now, freeMs) + bytes / bytesPerMs
      pace.sent(++seq, bytes, now, 0)
      arriving.push({ seq, atMs: freeMs + 1 })
      sent += bytes
    }
    if (now > forMs / 2) longest = Math.max(longest, freeMs - now)
  }
  return { sent, longest, window: pace.windowBytes }
}

describe('the pace of a copy', () => {
  const MIB = 1024 * 1024
  test('without clients the link is the limit', () => {
    const fast = copyOver(MIB, false, 2_000)
    assert.ok(fast.sent > 0.95 * 2_000 * MIB, `${fast.sent / MIB} MiB in 2 s over 1000 MiB/s`)
    assert.equal(fast.window, WINDOW_MAX)
  })

  test('while clients write, what they have to wait behind stays short', () => {
    const slow = copyOver(0.1 * MIB, true, 4_000)
    assert.ok(slow.longest < 12, `${slow.longest} ms`)
    assert.ok(slow.sent > 0.5 * 400 * MIB, 'and the link is still used')
    const fast = copyOver(MIB, true, 2_000)
    assert.ok(fast.longest < 8, `${fast.longest} ms`)
    assert.ok(fast.sent > 0.5 * 2_000 * MIB)
  })

  test('a step is never longer than a frame may be, nor shorter than a block', () => {
    const pace = new CopyPace()
    assert.ok(pace.stepBytes(0) <= COPY_STEP_BYTES && pace.stepBytes(0) >= BLOCK_BYTES)
    assert.ok(WINDOW_MIN / 4 >= BLOCK_BYTES)
  })

  test('a fixed rate is kept', () => {
    const pace = new CopyPace()
    let now = 0
    let sent = 0
    for (let seq = 1; now < 1_000; seq++) {
      now += pace.waitMs(now)
      pace.sent(seq, BLOCK_BYTES, now, 4 * MIB)
      pace.acknowledged(seq, now)
      sent += BLOCK_BYTES
    }
    assert.ok(sent <= 4 * MIB + 2 * BLOCK_BYTES && sent >= 4 * MIB - BLOCK_BYTES, `${sent}`)
  })
})

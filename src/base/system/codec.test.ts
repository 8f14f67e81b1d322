import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { type Codec, openCodec } from './codec.ts'

const native = openCodec()
const plain = openCodec({ native: false })
const pairs: readonly [string, Codec, Codec][] = [
  ['the libraries, read by themselves', native, native],
  ["the libraries, read by Node's functions", native, plain],
  ["Node's functions, read by the libraries", plain, native],
  ["Node's functions, read by themselves", plain, plain],
]
const shared = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(new SharedArrayBuffer(bytes.length))
  bytes.copy(copy)
  return copy
}
const contents = [
  Buffer.alloc(0),
  Buffer.from('x'),
  Buffer.alloc(65_536, 'some text, '),
  randomBytes(65_536),
  Buffer.concat([randomBytes(30_000), Buffer.alloc(35_536)]),
]

test('the Node that is pinned exports what the codec calls', () => {
  assert.equal(native.native, true)
  assert.equal(plain.native, false)
})

for (const [name, maker, reader] of pairs) {
  test(`what was made is read: ${name}`, () => {
    const key = randomBytes(32)
    const bound = randomBytes(33)
    for (const content of contents) {
      const source = shared(content)
      const frame = Buffer.alloc(70_000)
      const length = maker.compress(source, frame, 1)
      assert.ok(length !== undefined)
      const back = shared(Buffer.alloc(content.length))
      assert.equal(reader.decompress(frame.subarray(0, length), back), content.length)
      assert.ok(back.equals(content))

      const nonce = randomBytes(12)
      const tag = Buffer.alloc(16)
      const hidden = shared(Buffer.alloc(content.length))
      maker.seal(key, nonce, bound, source, hidden, tag)
      if (content.length > 16) assert.ok(!hidden.equals(content))
      assert.equal(reader.open(key, nonce, bound, hidden, back, tag), true)
      assert.ok(back.equals(content))
    }
  })

  test(`what was changed does not open, and nothing of it is shown: ${name}`, () => {
    const [key, nonce, bound, tag] = [32, 12, 33, 16].map((n) => randomBytes(n)) as [
      Buffer,
      Buffer,
      Buffer,
      Buffer,
    ]
    const source = randomBytes(5000)
    const hidden = Buffer.alloc(5000)
    maker.seal(key, nonce, bound, source, hidden, tag)
    const target = Buffer.alloc(5000)
    for (const part of [key, nonce, bound, hidden, tag]) {
      part[3] = (part[3] as number) ^ 16
      target.fill(1)
      assert.equal(reader.open(key, nonce, bound, hidden, target, tag), false)
      assert.ok(target.equals(Buffer.alloc(5000)))
      part[3] = (part[3] as number) ^ 16
    }
    assert.equal(reader.open(key, nonce, bound, hidden, target, tag), true)
    assert.ok(target.equals(source))
  })
}

for (const codec of [native, plain]) {
  const which = codec.native ? 'the libraries' : "Node's functions"
  test(`what does not fit is told, not cut off or written beyond the target: ${which}`, () => {
    const memory = Buffer.alloc(70_000, 7)
    const random = randomBytes(65_536)
    assert.equal(codec.compress(random, memory.subarray(0, 60_000), 1), undefined)
    assert.ok(memory.subarray(60_000).equals(Buffer.alloc(10_000, 7)))
    const text = Buffer.alloc(65_536, 'some text, ')
    const frame = Buffer.alloc(70_000)
    const length = codec.compress(text, frame, 19) ?? 0
    assert.ok(length > 0 && length < 200)
    memory.fill(7)
    assert.equal(codec.decompress(frame.subarray(0, length), memory.subarray(0, 65_535)), undefined)
    assert.ok(memory.subarray(65_535).every((byte) => byte === 7))
    assert.equal(codec.decompress(frame.subarray(0, length - 3), memory), undefined)
    assert.equal(codec.decompress(random.subarray(0, 500), memory), undefined)
  })

  test(`after its end a codec begins anew: ${which}`, () => {
    codec.close()
    const [key, nonce, bound] = [randomBytes(32), randomBytes(12), randomBytes(33)]
    const tag = Buffer.alloc(16)
    const block = Buffer.from('once more')
    codec.seal(key, nonce, bound, block, block, tag)
    assert.equal(codec.open(key, nonce, bound, block, block, tag), true)
    assert.equal(block.toString(), 'once more')
  })
}

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeChecked, encodeChecked } from './checked-json.ts'

const RECORD = { format: 2, id: 'ä-volume', sizes: [1024, 7], nested: { mode: 'x' }, none: null }

test('what is written is JSON for everybody, and comes back with the word that it is what was written', () => {
  for (const indent of [0, 1, 2] as const) {
    const text = encodeChecked(RECORD, indent)
    const plain = JSON.parse(text) as Record<string, unknown>
    assert.match(String(plain['crc32c']), /^[0-9a-f]{8}$/)
    assert.deepEqual(decodeChecked(text), { value: RECORD, checked: true })
  }
  assert.equal(encodeChecked({ a: 1 }, 2), '{\n  "a": 1,\n  "crc32c": "4f9c6419"\n}\n')
})

test('JSON without a checksum is told as that', () => {
  assert.deepEqual(decodeChecked('{"format":1}'), { value: { format: 1 }, checked: false })
  for (const text of ['', '{', 'x']) assert.equal(decodeChecked(text), null)
})

test('no bit that flips and no end that is missing leaves a record that passes for another one', () => {
  const bytes = Buffer.from(encodeChecked(RECORD, 1))
  /** As readers do: the format says whether there has to be a checksum. */
  const read = (text: string): unknown => {
    const found = decodeChecked(text)
    const value = found?.value as { format?: unknown } | undefined
    return value?.format === (found?.checked === true ? 2 : 1) ? value : undefined
  }
  assert.deepEqual(read(bytes.toString()), RECORD)
  let same = 0
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Buffer.from(bytes)
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
    const found = read(damaged.toString('utf8'))
    if (found === undefined) continue
    // White space behind the checksum may be another one.
    same++
    assert.deepEqual(found, RECORD, `bit ${bit}`)
  }
  assert.ok(same < 20, String(same))
  for (let length = 0; length < bytes.length - 1; length++) {
    const found = read(bytes.toString('utf8', 0, length))
    assert.ok(found === undefined || length === bytes.length - 1, `${length}`)
  }
})

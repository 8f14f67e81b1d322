import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BODY_DEPTH_MAX, isDeeperThan, isStorableText, parseBody } from './body.ts'

const parse = (text: string) => parseBody(Buffer.from(text))

test('whatever JSON can say comes out as it is', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 8 }), (value) => {
      const text = JSON.stringify(value)
      fc.pre(isStorableText(text) && !text.includes('\\u0000') && !text.includes('__proto__'))
      const parsed = parse(` ${text}\r\n`)
      assert.ok(parsed.ok)
      assert.deepEqual(parsed.value, JSON.parse(text))
    }),
  )
})

test('no bytes at all make it throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const parsed = parseBody(bytes)
      if (!parsed.ok) assert.match(parsed.reason, /^The body /)
    }),
  )
})

test('nothing and white space are no body', () => {
  for (const text of ['', ' ', '\r\n', '\ufeff']) {
    assert.deepEqual(parse(text), { ok: true, value: undefined })
  }
})

test('depth is counted outside of strings only', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  assert.equal(isDeeperThan(nested(BODY_DEPTH_MAX), BODY_DEPTH_MAX), false)
  assert.equal(isDeeperThan(nested(BODY_DEPTH_MAX + 1), BODY_DEPTH_MAX), true)
  const quoted = JSON.stringify({ a: '[[[["\\"[[[', b: '\\' })
  assert.equal(isDeeperThan(quoted, 1), false)
  assert.deepEqual(parse(quoted), { ok: true, value: JSON.parse(quoted) as unknown })
})

test('a prototype in disguise is dropped like any unknown member', () => {
  for (const name of ['__proto__', '\\u005f_proto__', '\\u005F\\u005fproto_\\u005f']) {
    const parsed = parse(`{"a":1,"${name}":{"admin":true}}`)
    assert.ok(parsed.ok)
    const copy = Object.assign({}, parsed.value) as { admin?: boolean }
    assert.equal(copy.admin, undefined)
    assert.deepEqual(Object.keys(copy), ['a'])
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isDescription, isName, isVolumeText } from './text.ts'

test('a name has 1 to 64 bytes of letters, digits, dot, underscore and hyphen', () => {
  for (const good of ['a', 'A.b_c-9', 'x'.repeat(64)]) assert.ok(isName(good), good)
  const bad = ['', 'x'.repeat(65), 'a b', 'a/b', 'ä', '名', 'a\n', 'a\0', 7, null, undefined, {}]
  for (const one of bad) assert.ok(!isName(one), JSON.stringify(one))
})

test('a description is limited in bytes, not in characters', () => {
  assert.ok(isDescription(''))
  assert.ok(isDescription('ä'.repeat(32)))
  assert.ok(!isDescription(`${'ä'.repeat(32)}x`))
  assert.ok(!isDescription('x'.repeat(65)))
})

test('a description without angle brackets, NUL and broken characters', () => {
  for (const bad of ['<', 'a>b', 'a\0', '\ud800', 1, null]) assert.ok(!isDescription(bad))
})

test('texts of volumes may have 255 bytes', () => {
  assert.ok(isVolumeText('日'.repeat(85)))
  assert.ok(!isVolumeText('日'.repeat(86)))
  assert.ok(!isVolumeText(5))
})

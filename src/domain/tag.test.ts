import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isTagKey, isTagValue, matchesTags } from './tag.ts'

test('keys and values have no blanks at their ends and are not too long', () => {
  for (const key of ['a', 'ä b', 'k'.repeat(127)]) assert.ok(isTagKey(key), key)
  for (const key of ['', ' a', 'a ', '\t', 'k'.repeat(128), 'a\0b']) assert.ok(!isTagKey(key), key)
  for (const value of ['', 'a b', 'v'.repeat(255)]) assert.ok(isTagValue(value), value)
  for (const value of [' ', 'a ', 'v'.repeat(256), '\ud800']) assert.ok(!isTagValue(value), value)
})

const TAGS = [
  { key: 'env', value: 'production' },
  { key: 'owner', value: '' },
]
const has = (key: string, ...values: string[]) => ({ key, values })

test('of the values of one key any counts, and without values every value does', () => {
  for (const [condition, matches] of [
    [has('env'), true],
    [has('env', 'production'), true],
    [has('env', 'test', 'production'), true],
    [has('env', 'test'), false],
    [has('env', 'prod'), false],
    [has('env', '*duct'), true],
    [has('env', '*xyz'), false],
    [has('owner', ''), true],
    [has('owner', 'x'), false],
    [has('absent'), false],
    [has('ENV'), false],
  ] as const) {
    assert.equal(matchesTags(TAGS, { tags: [condition] }), matches, JSON.stringify(condition))
  }
})

test('all, any, not all and none of several keys', () => {
  const [yes, also, no] = [has('env'), has('owner'), has('absent')]
  for (const [query, matches] of [
    [{}, true],
    [{ tags: [], tagsAny: [], notTags: [], notTagsAny: [] }, true],
    [{ tags: [yes, also] }, true],
    [{ tags: [yes, no] }, false],
    [{ tagsAny: [no, yes] }, true],
    [{ tagsAny: [no] }, false],
    [{ notTags: [yes, also] }, false],
    [{ notTags: [yes, no] }, true],
    [{ notTagsAny: [no, yes] }, false],
    [{ notTagsAny: [no] }, true],
    [{ tags: [yes], notTagsAny: [also] }, false],
  ] as const) {
    assert.equal(matchesTags(TAGS, query), matches, JSON.stringify(query))
  }
  assert.equal(matchesTags([], { notTags: [yes] }), true)
})

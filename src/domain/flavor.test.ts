import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findFlavor, FLAVORS } from './flavor.ts'

test('flavors have names of their own, and what a definition may say', () => {
  assert.equal(new Set(FLAVORS.map(({ name }) => name)).size, FLAVORS.length)
  for (const { name, vcpus, memoryMb } of FLAVORS) {
    assert.ok(vcpus >= 1 && vcpus <= 64 && memoryMb >= 96 && memoryMb <= 1_048_576, name)
  }
})

test('the flavors that existing automation asks for are there', () => {
  for (const name of ['t2.micro', 's2.medium.1', 's3.medium.1', 's3.large.2']) {
    assert.equal(findFlavor(name)?.name, name)
  }
  assert.ok(FLAVORS.some(({ vcpus, memoryMb }) => vcpus === 2 && memoryMb === 4096))
  assert.equal(findFlavor('m1.tiny'), undefined)
})

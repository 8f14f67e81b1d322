import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { type CpuTimes, foreignShare, median } from './machine.ts'

const times = (seconds: number, all: number, kernelThreads: number, ours: number): CpuTimes => ({
  atMs: seconds * 1000,
  all,
  kernelThreads,
  ours,
})

test('the median of an even number of values lies between the middle two', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 3, 2]), 2.5)
  assert.ok(Number.isNaN(median([])))
})

test('foreign is what is neither ours nor the kernel’s, and never below nothing', () => {
  const before = times(0, 100, 10, 50)
  assert.equal(foreignShare(before, times(1, 101.5, 10.5, 50.5), 0.5), 0)
  const halfACore = foreignShare(before, times(1, 101, 10, 50.25), 0.25)
  assert.ok(Math.abs(halfACore - 0.5 / availableParallelism()) < 1e-9)
  assert.equal(foreignShare(before, times(1, 101, 10, 52), 0), 0)
})

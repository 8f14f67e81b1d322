import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AgentView } from '#control/sites/agents.ts'
import { createSilence } from './silence.ts'

function lab() {
  let nowMs = 1_000
  const heard = new Set(['az1', 'az2'])
  const views = ['az1', 'az2'].map((site) => ({ report: { site }, ageMs: 0 }) as AgentView)
  const silence = createSilence({
    agents: { list: () => views, heard: (site) => heard.has(site) },
    clock: { bootMs: () => nowMs },
    everyMs: 1_000,
  })
  const pass = (ms: number) => {
    nowMs += ms
    silence.listen()
  }
  return { heard, silence, pass }
}

test('a silence lasts from the first moment in which a site was missed, and ends when it is heard', () => {
  const { heard, silence, pass } = lab()
  pass(1_000)
  assert.equal(silence.ofSite('az1'), 0)
  heard.delete('az1')
  pass(1_000)
  assert.equal(silence.ofSite('az1'), 0)
  pass(1_000)
  pass(1_000)
  assert.deepEqual([silence.ofSite('az1'), silence.ofSite('az2')], [2_000, 0])
  heard.add('az1')
  pass(1_000)
  assert.equal(silence.ofSite('az1'), 0)
})

test('who did not get to listen for a while counts from the beginning', () => {
  const { heard, silence, pass } = lab()
  heard.delete('az1')
  for (let turn = 0; turn < 30; turn++) pass(1_000)
  assert.equal(silence.ofSite('az1'), 29_000)
  pass(4_000)
  assert.equal(silence.ofSite('az1'), 33_000, 'a busy machine')
  pass(4_001)
  assert.equal(silence.ofSite('az1'), 0)
})

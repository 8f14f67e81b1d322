import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { parseProbes, probeText } from './probe-text.ts'
import { USAGE } from './usage.ts'

const INSTANCE = '0f8b5ad4-6a5e-4d0f-9d3b-3c6a1f2b7c11'

test('probes are read as they are typed, and shown the same way', () => {
  const typed = [
    'boot',
    'boot:READY web: 1',
    'tcp:5432',
    'http:8080/health?full=1=204',
    'http:80/',
    'command:systemctl is-active nginx',
  ]
  const { '*': probes = [] } = parseProbes(typed)
  assert.deepEqual(probes.map(probeText), typed)
  assert.deepEqual(probes[3], { kind: 'http', port: 8080, path: '/health?full=1', status: 204 })
  assert.deepEqual(probes[5], { kind: 'command', command: ['systemctl', 'is-active', 'nginx'] })
})

test('a probe is for one instance, or for all others', () => {
  assert.deepEqual(parseProbes([`${INSTANCE.toUpperCase()}=tcp:22`, '*=boot', 'tcp:80']), {
    [INSTANCE]: [{ kind: 'tcp', port: 22 }],
    '*': [{ kind: 'boot' }, { kind: 'tcp', port: 80 }],
  })
  assert.deepEqual(parseProbes([`${INSTANCE}=none`]), { [INSTANCE]: [] })
})

test('what is no probe is refused before anything is done', () => {
  for (const text of [
    '',
    'ping',
    'tcp',
    'tcp:0',
    'tcp:65536',
    'tcp:x',
    'http:80',
    'command:',
    'x=boot',
  ]) {
    assert.throws(
      () => parseProbes([text]),
      (error) => isFault(error, USAGE),
      text,
    )
  }
})

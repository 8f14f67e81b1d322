import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ContractName, operationsOf, violations } from './validate.ts'

const headers = { 'content-type': 'application/json; charset=utf-8' }

test('an answer that the contract allows has no violations', () => {
  const body = { job_id: '0123456789abcdef0123456789abcdef' }
  const path = '/v1/p/server-groups'
  const answer = { method: 'POST', path, status: 200, headers, text: JSON.stringify(body) }
  assert.deepEqual(violations('sdrs', answer), [])
})

test('a wrong type, a missing member, a foreign status, a lost header and a stray body are found', () => {
  const version = {
    version: { id: 'v3.14', status: 'stable', links: [{ rel: 'self', href: 'http://x/v3/' }] },
  }
  const right = { method: 'GET', path: '/v3/', status: 200, headers, text: JSON.stringify(version) }
  assert.deepEqual(violations('iam', right), [])
  const wrong = { version: { ...version.version, id: 3 } }
  assert.equal(violations('iam', { ...right, text: JSON.stringify(wrong) }).length, 1)
  assert.equal(violations('iam', { ...right, text: '{}' }).length, 1)
  assert.equal(violations('iam', { ...right, text: '' }).length, 1)
  assert.equal(violations('iam', { ...right, status: 201 }).length, 1)
  assert.equal(violations('iam', { ...right, headers: {} }).length, 1)
  assert.equal(violations('iam', { ...right, path: '/v3/nothing' }).length, 1)
  const token = { method: 'GET', path: '/v3/auth/tokens', status: 200, headers, text: '{}' }
  assert.equal(violations('iam', token).length, 2)
  const revoked = { ...token, method: 'DELETE', status: 204, text: '{}' }
  assert.equal(violations('iam', revoked).length, 1)
})

test('literal path segments win over parameters', () => {
  const detail = { method: 'GET', path: '/v2/p/volumes/detail', status: 200, headers, text: '{}' }
  assert.match(violations('evs', detail).join(), /volumes/)
})

test('every schema of the contracts compiles', () => {
  for (const name of ['iam', 'sdrs', 'evs', 'compute'] as ContractName[]) {
    for (const { method, path, statuses } of operationsOf(name)) {
      for (const status of statuses.filter((one) => one !== 'default')) {
        violations(name, { method, path, status: Number(status), headers, text: '{}' })
      }
    }
  }
})

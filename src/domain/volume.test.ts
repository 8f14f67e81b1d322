import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decideVolume,
  VOLUME_GB_MAX,
  VOLUME_MOVES,
  VOLUME_STATUSES,
  type VolumeFacts,
  type VolumeStatus,
} from './volume.ts'

const facts = (over: Partial<VolumeFacts> = {}): VolumeFacts => ({
  status: 'available',
  sizeGb: 10,
  bootable: false,
  multiattach: false,
  attached: false,
  paired: false,
  ...over,
})

test('every command in every status is decided as the tables say', () => {
  const extend: VolumeStatus[] = ['available', 'in-use', 'error_extending']
  const del: VolumeStatus[] = ['available', 'error', 'error_extending', 'error_deleting']
  for (const status of VOLUME_STATUSES) {
    const at = facts({ status })
    assert.equal(decideVolume(at, { kind: 'extend', newSizeGb: 11 }).ok, extend.includes(status))
    assert.equal(decideVolume(at, { kind: 'delete' }).ok, del.includes(status), status)
    const attach: VolumeStatus[] = ['available', 'attaching']
    assert.equal(decideVolume(at, { kind: 'attach' }).ok, attach.includes(status), status)
    assert.equal(decideVolume(at, { kind: 'reserve' }).ok, status === 'available', status)
    assert.equal(decideVolume(at, { kind: 'unreserve' }).ok, status === 'attaching', status)
    assert.equal(decideVolume(at, { kind: 'detach' }).ok, false, status)
    assert.equal(
      decideVolume({ ...at, attached: true }, { kind: 'detach' }).ok,
      status === 'in-use',
      status,
    )
    assert.deepEqual(decideVolume(at, { kind: 'rename' }), { ok: true, via: null })
  }
})

test('an allowed command moves along the table of moves', () => {
  for (const status of VOLUME_STATUSES) {
    for (const kind of ['extend', 'delete', 'reserve', 'unreserve', 'attach', 'detach'] as const) {
      const command = kind === 'extend' ? { kind, newSizeGb: 11 } : { kind }
      const decision = decideVolume(facts({ status, attached: kind === 'detach' }), command)
      if (decision.ok && decision.via !== null) {
        assert.ok(VOLUME_MOVES[status].includes(decision.via), `${kind} in ${status}`)
      }
    }
  }
})

test('a volume of a pair is neither deleted nor extended on its own', () => {
  for (const status of VOLUME_STATUSES) {
    for (const command of [{ kind: 'delete' }, { kind: 'extend', newSizeGb: 11 }] as const) {
      assert.deepEqual(decideVolume(facts({ status, paired: true }), command), {
        ok: false,
        refusal: 'VOLUME_PAIRED',
      })
    }
  }
})

test('a volume only grows, up to the limit of its kind', () => {
  const extend = (newSizeGb: number, over: Partial<VolumeFacts> = {}) => {
    const decision = decideVolume(facts(over), { kind: 'extend', newSizeGb })
    return decision.ok ? 'ok' : decision.refusal
  }
  assert.equal(extend(10), 'VOLUME_NOT_LARGER')
  assert.equal(extend(1), 'VOLUME_NOT_LARGER')
  assert.equal(extend(VOLUME_GB_MAX), 'ok')
  assert.equal(extend(VOLUME_GB_MAX + 1), 'VOLUME_TOO_LARGE')
  assert.equal(extend(1025, { bootable: true }), 'VOLUME_TOO_LARGE')
  assert.equal(extend(11, { status: 'in-use', multiattach: true }), 'VOLUME_SHARED_EXTEND_STATE')
})

test('an attached volume is not deleted', () => {
  assert.equal(decideVolume(facts({ attached: true }), { kind: 'delete' }).ok, false)
})

test('a shared volume may be attached again while in use', () => {
  const at = facts({ status: 'in-use', multiattach: true, attached: true })
  assert.deepEqual(decideVolume(at, { kind: 'attach' }), { ok: true, via: 'in-use' })
})

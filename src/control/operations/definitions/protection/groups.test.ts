import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { OWNERSHIP_REFUSED } from '#control/sites/witness.ts'
import { closedRecord, type Ownership } from '#domain/ownership.ts'
import type { OperationServices } from '../../services.ts'
import type { StepContext } from '../../operation.ts'
import { type StopGroup, stopGroup } from './groups.ts'
import { endSession } from './session.ts'

/** What stopping finds out when the record is, one after the other, what `states` say whenever it is looked at. */
async function closing(...states: Ownership['state'][]): Promise<unknown> {
  let epoch = 4
  const witness = {
    record: async () => {
      const state = states.shift() ?? assert.fail('it is not looked at so often')
      return { ...closedRecord('group', 'az1', 'az2', 'one'), state, epoch: ++epoch }
    },
    change: async () => {
      if (states.length === 0) return { ...closedRecord('group', 'az1', 'az2', 'one'), epoch: 9 }
      throw new Fault(OWNERSHIP_REFUSED, 'closing', { refusal: 'STALE_EPOCH' })
    },
  }
  const services = { witness } as unknown as OperationServices
  const ctx = { id: 'operation', resourceId: 'group', attemptId: 'one', services }
  const step = stopGroup.steps.find(({ name }) => name === 'close_record')
  return await step?.act(ctx as unknown as StepContext<StopGroup>)
}

test('whether both sites were equal at a stop is what the record said that was closed, not an earlier one', async () => {
  const equal = async (...states: Ownership['state'][]) =>
    ((await closing(...states)) as { inSync: boolean }).inSync
  assert.equal(await equal('in_sync'), true)
  assert.equal(await equal('in_sync', 'resyncing'), false, 'dropped in between')
  assert.equal(await equal('resyncing', 'in_sync'), true, 'risen in between')
  assert.equal(await equal('closed'), false, 'not known')
})

test('a stop whose record was opened again by break-glass fails, and the control plane goes on', async () => {
  const record = { ...closedRecord('group', 'az2', 'az1', 'glass'), state: 'failed_over' as const }
  const services = { witness: { record: async () => record } } as unknown as OperationServices
  const ctx = { id: 'operation', services } as unknown as StepContext<StopGroup>
  await assert.rejects(endSession(ctx, 'group', 'az1'), /SESSION_OPENED_MEANWHILE/)
})

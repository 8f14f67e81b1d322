import {
  deleteSnapshotRow,
  moveSnapshot,
  type SnapshotFacts,
} from '#control/resources/snapshots.ts'
import { toJson } from '#control/store/json.ts'
import type { SnapshotStatus } from '#domain/snapshot.ts'
import { operation, type OperationSpec, step, type StepContext } from '../../operation.ts'

/* Operations on the snapshots of users. The agent of the site does it; every command may be repeated with the same result. */

export const SNAPSHOT_RESOURCE = 'snapshot'

/** Flushing ahead of a clone, or setting terabytes back, takes longer than other commands. Below the client's own limit of 300 s. */
const COMMAND_MS = 280_000

export interface SnapshotInput {
  readonly site: string
}

export interface CreateSnapshot extends SnapshotInput {
  readonly volumes: readonly string[]
}

const failedTo =
  (to: SnapshotStatus): OperationSpec<SnapshotInput>['failed'] =>
  (tx, ctx, failure) =>
    moveSnapshot(
      tx,
      ctx.resourceId,
      to,
      { failure_detail: failure.message.slice(0, 500) },
      ctx.services.clock.wallMs(),
    )

const tellSite =
  (command: 'snapshot.delete' | 'snapshot.rollback') =>
  async (ctx: StepContext<SnapshotInput>): Promise<void> => {
    await ctx.services.sites.command(
      ctx.input.site,
      command,
      { snapshot: ctx.resourceId },
      { signal: ctx.signal, timeoutMs: COMMAND_MS },
    )
  }

export const createSnapshot = operation<CreateSnapshot>('snapshot.create', {
  version: 1,
  steps: [
    step<CreateSnapshot, SnapshotFacts>('take', {
      act: (ctx) =>
        ctx.services.sites.command(
          ctx.input.site,
          'snapshot.create',
          { snapshot: ctx.resourceId, volumes: [...ctx.input.volumes] },
          { signal: ctx.signal, timeoutMs: COMMAND_MS },
        ),
      record: (tx, ctx, facts) =>
        moveSnapshot(
          tx,
          ctx.resourceId,
          'available',
          { facts: toJson(facts) },
          ctx.services.clock.wallMs(),
        ),
    }),
  ],
  failed: failedTo('error'),
})

export const deleteSnapshot = operation<SnapshotInput>('snapshot.delete', {
  version: 1,
  steps: [
    step('remove', {
      act: tellSite('snapshot.delete'),
      record: (tx, ctx) => deleteSnapshotRow(tx, ctx.resourceId),
    }),
  ],
  failed: failedTo('error-deleting'),
})

export const rollbackSnapshot = operation<SnapshotInput>('snapshot.rollback', {
  version: 1,
  steps: [
    step('roll_back', {
      act: tellSite('snapshot.rollback'),
      record: (tx, ctx) =>
        moveSnapshot(
          tx,
          ctx.resourceId,
          'available',
          { failure_detail: null },
          ctx.services.clock.wallMs(),
        ),
    }),
  ],
  failed: failedTo('available'),
})

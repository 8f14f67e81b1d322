import { Fault, fault } from '#base/fault.ts'
import {
  DRILL_RESOURCE,
  drillDisks,
  type drillsAdrift,
  moveDrill,
} from '#control/resources/drills.ts'
import type { Transaction } from '#control/store/store.ts'
import type { OperationEngine } from '../../engine.ts'
import { operation, step } from '../../operation.ts'
import { teardownUndone } from './drill-end.ts'
import { wakeNext } from './drill-making.ts'
import { writeReport } from './drill-reports.ts'
import { stepTimes, theDrill } from './drill-steps.ts'
import { recordUnmade } from './drills.ts'

/* What an earlier release left under way. Its steps were others, and what they found is of another form: such a drill comes to its end as one
 * that could not be made, or not be deleted, and is deleted then as every other. Without these its operation would wait for ever.
 * A drill that is found without any operation is given one of them. */

export const DRILL_OF_OLD = fault({
  code: 'DRILL_OF_OLD',
  retry: 'never',
  text: 'The drill was under way when the control plane was upgraded, or its operation was lost, and it is not carried on.',
  hint: 'Delete the drill; make it again if it is still wanted.',
})

const given = (name: string) =>
  step<Record<string, never>>(name, {
    act: async (ctx) => {
      throw new Fault(DRILL_OF_OLD, `working on drill ${ctx.resourceId}`)
    },
  })

export const createDrill1 = operation<Record<string, never>>('drill.create', {
  version: 1,
  steps: ['snapshot', 'clone', 'release', 'start', 'probe', 'finish'].map(given),
  failed: async (tx, ctx, failure) => {
    const drill = await theDrill(tx, ctx.resourceId)
    await recordUnmade(tx, ctx, await drillDisks(tx, drill.id))
    const change = { failure_detail: failure.message.slice(0, 500) }
    await moveDrill(tx, drill.id, 'error', change, ctx.services.clock.wallMs())
    const parts = { drill, findings: null, steps: await stepTimes(tx, ctx.id), failure }
    await writeReport(tx, ctx.services, { ...parts, stage: 'failed', teardown: null })
    await wakeNext(tx, ctx)
  },
})

export const deleteDrill1 = operation<Record<string, never>>('drill.delete', {
  version: 1,
  steps: ['servers', 'volumes', 'snapshot', 'verify', 'end'].map(given),
  failed: async (tx, ctx, failure) => {
    const drill = await theDrill(tx, ctx.resourceId)
    const change = { failure_detail: failure.message.slice(0, 500) }
    await moveDrill(tx, drill.id, 'error-deleting', change, ctx.services.clock.wallMs())
    const teardown = await teardownUndone(tx, ctx.id, failure.message)
    await writeReport(tx, ctx.services, { drill, stage: 'ended', failure, teardown })
  },
})

/** Within the transaction that has found it adrift. */
export async function endAdrift(
  tx: Transaction,
  operations: Pick<OperationEngine, 'submit'>,
  drill: Awaited<ReturnType<typeof drillsAdrift>>[number],
): Promise<void> {
  const kind = drill.status === 'creating' ? createDrill1 : deleteDrill1
  await operations.submit(tx, kind, {
    project: drill.project,
    resourceType: DRILL_RESOURCE,
    resourceId: drill.id,
    input: {},
    entities: {},
  })
}

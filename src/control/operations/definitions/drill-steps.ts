import { Fault, fault } from '#base/fault.ts'
import { readDrill } from '#control/resources/drills.ts'
import type { DrillRow } from '#control/store/tables/drills.ts'
import type { DrillStep } from '#wire/reports/drill-report.ts'
import type { StepContext } from '../operation.ts'

export const DRILL_GONE = fault({
  code: 'DRILL_GONE',
  retry: 'never',
  text: 'The drill was deleted meanwhile.',
  hint: 'Nothing is left to be done.',
})

export async function theDrill(db: Parameters<typeof readDrill>[0], id: string): Promise<DrillRow> {
  const row = await readDrill(db, id)
  if (row === undefined) throw new Fault(DRILL_GONE, `working on drill ${id}`)
  return row
}

/** A result, with the time that it took. */
export interface Timed<T> {
  readonly value: T
  readonly step: DrillStep
}

export async function timed<T>(
  ctx: StepContext<unknown>,
  name: string,
  work: () => Promise<T>,
): Promise<Timed<T>> {
  const { clock } = ctx.services
  const [started_at, began] = [clock.wallMs(), clock.bootMs()]
  const value = await work()
  return { value, step: { name, started_at, ms: Math.round(clock.bootMs() - began) } }
}

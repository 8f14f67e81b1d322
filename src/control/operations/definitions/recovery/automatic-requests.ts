import {
  findAutomatic,
  insertAutomatic,
  listVerdicts,
  updateAutomatic,
} from '#control/resources/automatic-failovers.ts'
import { findGroup } from '#control/resources/groups.ts'
import { toJson } from '#control/store/json.ts'
import type { Transaction } from '#control/store/store.ts'
import type {
  AutomaticFailoverRow,
  AutomaticFailoverVerdictRow,
} from '#control/store/tables/recovery.ts'
import { type ArmRefusal, decideArming } from '#domain/automatic-failover.ts'
import { type Outcome, type RequestServices, refused } from '../requests.ts'

/* What an operator says about the automatic failover of a group. Each of it is in the audit log. */

type Services = Pick<RequestServices, 'store' | 'clock'>

/** Long enough for a reboot of an agent's host to be none of its business. */
export const DEFAULT_SILENCE_MS = 30_000
export const DEFAULT_COOL_DOWN_MS = 15 * 60_000

export interface AutomaticView {
  /** Null: it was never enabled. */
  readonly row: AutomaticFailoverRow | null
  /** Newest first. */
  readonly verdicts: readonly AutomaticFailoverVerdictRow[]
}

/** Undefined: there is no such group. */
export async function showAutomatic(
  { store }: Pick<Services, 'store'>,
  project: string,
  group: string,
  limit: number,
): Promise<AutomaticView | undefined> {
  return await store.read(async (db) => {
    if ((await findGroup(db, project, group)) === undefined) return undefined
    return {
      row: (await findAutomatic(db, group)) ?? null,
      verdicts: await listVerdicts(db, group, limit),
    }
  })
}

export interface AutomaticChange {
  readonly enabled?: boolean
  readonly silenceMs?: number
  readonly coolDownMs?: number
  /** An operator's reason why it is not to act for the time being; null: it may. */
  readonly hold?: string | null
}

/** Stores what is given and leaves the rest. Enabling arms it only at the first time: after it has acted, arming is a word of its own. */
export async function changeAutomatic(
  { store, clock }: Services,
  project: string,
  id: string,
  change: AutomaticChange,
  by: string,
): Promise<Outcome<object, 'GROUP_UNKNOWN'>> {
  return await store.write(async (tx) => {
    const group = await findGroup(tx, project, id)
    if (group === undefined) return refused('GROUP_UNKNOWN')
    const now = clock.wallMs()
    const { enabled, silenceMs, coolDownMs, hold } = change
    const row = await findAutomatic(tx, id)
    if (row === undefined) {
      await insertAutomatic(tx, {
        group_id: id,
        project,
        enabled: enabled === true ? 1 : 0,
        armed: 1,
        hold: hold ?? null,
        silence_ms: silenceMs ?? DEFAULT_SILENCE_MS,
        cool_down_ms: coolDownMs ?? DEFAULT_COOL_DOWN_MS,
        verdict: toJson([]),
        serial: 1,
        acted_at: null,
        operation: null,
        updated_by: by,
        updated_at: now,
      })
      return { ok: true }
    }
    await updateAutomatic(tx, row, {
      ...(enabled === undefined ? {} : { enabled: enabled ? 1 : 0 }),
      ...(silenceMs === undefined ? {} : { silence_ms: silenceMs }),
      ...(coolDownMs === undefined ? {} : { cool_down_ms: coolDownMs }),
      ...(hold === undefined ? {} : { hold }),
      // Whatever it looked at before, it says again what it finds.
      verdict: toJson([]),
      updated_by: by,
      updated_at: now,
    })
    return { ok: true }
  })
}

/** After it has acted: it may act once more. */
export async function armAutomatic(
  { store, clock }: Services,
  project: string,
  id: string,
  by: string,
): Promise<Outcome<object, 'GROUP_UNKNOWN' | ArmRefusal> & { readonly readyAt?: number }> {
  return await store.write(async (tx: Transaction) => {
    if ((await findGroup(tx, project, id)) === undefined) return refused('GROUP_UNKNOWN')
    const row = await findAutomatic(tx, id)
    if (row === undefined) return refused('NOT_ENABLED')
    const now = clock.wallMs()
    const refusal = decideArming({
      enabled: row.enabled === 1,
      armed: row.armed === 1,
      actedAt: row.acted_at,
      coolDownMs: row.cool_down_ms,
      now,
    })
    if (refusal !== null) {
      const readyAt = (row.acted_at ?? now) + row.cool_down_ms
      return { ...refused(refusal), readyAt }
    }
    await updateAutomatic(tx, row, {
      armed: 1,
      verdict: toJson([]),
      updated_by: by,
      updated_at: now,
    })
    return { ok: true }
  })
}

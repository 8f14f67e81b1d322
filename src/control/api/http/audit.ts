import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '#base/clock.ts'
import { newId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { toJson } from '#control/store/json.ts'
import type { Store } from '#control/store/store.ts'

/** Where audit rows go; rows are never changed. */
export interface AuditLog {
  write(entry: AuditEntry): Promise<void>
}

export interface AuditEntry {
  readonly project: string | null
  /** User id; `unknown` for a failed login. */
  readonly actor: string
  readonly source: string | null
  readonly action: string
  readonly target: string | null
  /** HTTP status of the answer. */
  readonly result: number
  readonly detail: Readonly<Record<string, unknown>>
}

export function storeAuditLog(store: Store, clock: Clock): AuditLog {
  return {
    async write(entry) {
      const row = { ...entry, id: newId(), at: clock.wallMs(), detail: toJson(entry.detail) }
      await store.write(async (tx) => {
        await tx.insertInto('audit').values(row).execute()
      })
    },
  }
}

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** True for methods that may change something: they are audited, and their signatures count only once. */
export const isChanging = (method: string): boolean => !SAFE_METHODS.has(method)

/**
 * Records a changing request of a known caller, refused ones too, before its answer leaves: who sees the answer can rely
 * on the record. The change itself is committed by then; so a record that cannot be written is logged in full
 * and the answer still says what happened.
 */
export async function auditAnswer(
  log: AuditLog,
  errors: Log,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const { config, url } = request.routeOptions
  if (request.principal === null || !isChanging(request.method) || config.query === true) return
  const entry: AuditEntry = {
    project: request.principal.project?.id ?? null,
    actor: request.principal.user.id,
    source: request.ip,
    action: config.audit ?? `${request.method} ${url ?? 'unknown path'}`,
    target: request.audit.target,
    result: reply.statusCode,
    detail: {
      ...request.audit.detail,
      request: request.id,
      by: request.principal.by,
      ...(request.principal.accessKey === null ? {} : { key: request.principal.accessKey }),
    },
  }
  try {
    await log.write(entry)
  } catch (error) {
    errors.error({ err: error, entry }, 'an audit entry could not be stored')
  }
}

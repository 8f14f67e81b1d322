import type { TLSSocket } from 'node:tls'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { Compile } from 'typebox/compile'
import { type Address, formatAddress } from '#base/config.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { parseCommonName } from '#base/common-name.ts'
import type { Ownership } from '#domain/ownership.ts'
import {
  type OwnershipRecord,
  Report,
  type ReportAnswer,
  type WitnessAnswer,
  WitnessAsk,
} from '#wire/site/witness.ts'
import type { AgentBook } from './agents.ts'
import type { ClientCredential } from './client.ts'
import type { Witness } from './witness.ts'

/* The internal port, where agents report and ask the witness; the wire format is in wire/site/witness.ts.
 *
 *   200  the answer, refusals of the witness included
 *   400  not what the schema says: nothing was done
 *   403  the certificate is not that of the agent that the body speaks for
 *   404  no such session, or the site has no part in it
 *   503  the state could not be read or written; the agent takes it for an unreachable witness and asks again
 */

const BODY_BYTES_MAX = 4 * 1024 * 1024

export const INTERNAL_LISTEN = fault({
  code: 'INTERNAL_LISTEN',
  retry: 'later',
  text: 'The internal port could not be opened.',
  hint: 'Stop the program that uses it, or configure another internalListen.',
})
export const INTERNAL_REFUSED = fault({
  code: 'INTERNAL_REFUSED',
  retry: 'never',
  text: 'The request to the internal port was refused.',
  hint: "Check that the agent's certificate names its site and id, and that both sides run the same release.",
})

const reports = Compile(Report)
const asks = Compile(WitnessAsk)

export interface InternalServer {
  readonly port: number
  close(): Promise<void>
}

export async function serveInternal(options: {
  readonly listen: Address
  readonly credential: ClientCredential
  readonly agents: AgentBook
  readonly witness: Witness
  readonly incarnation: () => Promise<string>
  readonly log: Log
}): Promise<InternalServer> {
  const { listen, credential, agents, witness, incarnation, log } = options
  const app = Fastify({
    https: { ...credential, requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' },
    bodyLimit: BODY_BYTES_MAX,
    logger: false,
    forceCloseConnections: true,
  })
  app.setErrorHandler(async (error, request, reply) => {
    const status = statusOf(error)
    log[status === 503 ? 'error' : 'warn'](
      { err: error, url: request.url, status },
      'an internal request was refused',
    )
    await reply.code(status).send({ code: codeOf(error), text: textOf(error) })
  })

  app.post('/internal/v1/report', async (request): Promise<ReportAnswer> => {
    const { body } = request
    if (!reports.Check(body)) throw malformed(reports.Errors(body))
    const caller = callerOf(request)
    if (caller.site !== body.site || caller.agent !== body.agent) throw stranger(caller, body.site)
    await agents.receive(body)
    const mark = await witness.heard(body)
    return { incarnation: await incarnation(), mark }
  })

  app.post('/internal/v1/witness/:session', async (request): Promise<WitnessAnswer> => {
    const { body } = request
    const { session } = request.params as { session: string }
    if (!asks.Check(body)) throw malformed(asks.Errors(body))
    const caller = callerOf(request)
    if (caller.site !== body.site) throw stranger(caller, body.site)
    const known = await witness.record(session)
    const parties = known === null ? [] : [known.writer, known.replica]
    if (body.kind === 'configure' && known !== null && !parties.includes(body.preferred)) {
      throw refused(400, `${body.preferred} is no site of session ${session}`)
    }
    if (body.kind === 'promoted' && body.record.session !== session) {
      throw refused(400, `a record of session ${body.record.session} for ${session}`)
    }
    const answer = parties.includes(body.site)
      ? await witness.ask(session, body, `site:${body.site}`)
      : null
    if (answer === null) throw refused(404, `no session ${session} for ${body.site}`)
    const record = onTheWire(answer.record)
    return answer.ok
      ? { ok: true, record, lease_ms: answer.leaseMs }
      : { ok: false, refusal: answer.refusal, record, retry_after_ms: answer.retryAfterMs }
  })

  await open(app, listen)
  const address = app.server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : listen.port,
    close: () => app.close(),
  }
}

/** The record without what only the witness needs. */
export const onTheWire = ({
  session,
  epoch,
  state,
  writer,
  replica,
  mode,
  preferred,
}: Ownership): OwnershipRecord => ({ session, epoch, state, writer, replica, mode, preferred })

interface Caller {
  readonly site: string
  readonly agent: string
}

function callerOf(request: FastifyRequest): Caller {
  const name: unknown = (request.socket as TLSSocket).getPeerCertificate().subject?.CN
  const identity = typeof name === 'string' ? parseCommonName(name) : undefined
  if (identity?.kind !== 'agent') throw refused(403, `certificate of ${String(name)}, not an agent`)
  return identity
}

const refused = (status: number, text: string): Fault =>
  new Fault(INTERNAL_REFUSED, text, { status })

const stranger = (caller: Caller, site: string): Fault =>
  refused(403, `agent ${caller.agent} of ${caller.site} speaks for ${site}`)

const malformed = (errors: readonly { instancePath: string; message: string }[]): Fault =>
  refused(400, `${errors[0]?.instancePath ?? ''} ${errors[0]?.message ?? 'malformed'}`)

function statusOf(error: unknown): number {
  if (isFault(error, INTERNAL_REFUSED)) return Number(error.detail.status)
  // Fastify's own: not JSON, too large, wrong content type.
  const status: unknown = error instanceof Error && 'statusCode' in error ? error.statusCode : null
  return typeof status === 'number' && status >= 400 && status < 500 ? status : 503
}

const codeOf = (error: unknown): string => (isFault(error) ? error.code : 'INTERNAL')
const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

async function open(app: FastifyInstance, { host, port }: Address): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (error) {
    throw new Fault(INTERNAL_LISTEN, `listening on ${formatAddress({ host, port })}`, {}, error)
  }
}

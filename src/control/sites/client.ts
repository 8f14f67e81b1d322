import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Agent, request as send } from 'undici'
import { Fault, fault, isFault } from '#base/fault.ts'
import { parseCommonName } from '#base/common-name.ts'
import {
  BOUND_TO_HISTORY,
  type CommandAnswer,
  type CommandName,
  type CommandRequest,
  COMMANDS,
  CommandRefusal,
  HISTORY_HEADER,
} from '#wire/site/commands.ts'
import type { AgentRegistry } from './agents.ts'

/** Sends commands to the agent of a site. Every command is idempotent, so a lost answer is asked for again. */
export interface SiteClient {
  /**
   * Sends one command to the freshest agent of `site` and returns its checked answer. Faults: SITE_NEVER_SEEN (no
   * agent ever reported), SITE_UNREACHABLE, SITE_BUSY (both worth repeating), SITE_REFUSED (`refusalCode` says why),
   * SITE_ANSWER_INVALID.
   */
  command<Name extends CommandName>(
    site: string,
    name: Name,
    request: CommandRequest<Name>,
    options?: CommandOptions,
  ): Promise<CommandAnswer<Name>>
  close(): Promise<void>
}

export interface CommandOptions {
  readonly signal?: AbortSignal
  /** Longest wait for the whole answer. Default 30 s: opening a session fences and flushes. */
  readonly timeoutMs?: number
}

export const SITE_NEVER_SEEN = fault({
  code: 'SITE_NEVER_SEEN',
  retry: 'later',
  text: 'No agent of the site has ever reported.',
  hint: 'Start an agent there, or check the name of the site.',
})
export const SITE_UNREACHABLE = fault({
  code: 'SITE_UNREACHABLE',
  retry: 'later',
  text: 'The agent of the site did not answer.',
  hint: 'Check that it runs and that the control plane reaches its command address.',
})
export const SITE_BUSY = fault({
  code: 'SITE_BUSY',
  retry: 'later',
  text: 'The agent could not carry out the command now.',
  hint: 'It is repeated by itself. The agent says more in its log.',
})
export const SITE_REFUSED = fault({
  code: 'SITE_REFUSED',
  retry: 'never',
  text: 'The agent refused the command.',
  hint: 'The refusal says why and what to do.',
})
export const SITE_ANSWER_INVALID = fault({
  code: 'SITE_ANSWER_INVALID',
  retry: 'never',
  text: 'The agent and the control plane do not understand each other.',
  hint: 'Run the same release on both.',
})

/** The agent's own code of a refusal (`STALE_EPOCH`, `NOT_CONSISTENT`, `VOLUME_BUSY` ...), or null for other errors. */
export function refusalCode(error: unknown): string | null {
  if (!isFault(error, SITE_REFUSED)) return null
  const { refusal } = error.detail
  return typeof refusal === 'string' ? refusal : null
}

const CONNECT_MS = 3_000
const ANSWER_MS = 30_000
/** Commands to one site at the same time; more wait for a free connection. */
const CONNECTIONS = 32

const answers = Object.fromEntries(
  Object.entries(COMMANDS).map(([name, { answer }]) => [name, Compile<TSchema>(answer)]),
)
const refusals = Compile(CommandRefusal)

/** PEM texts: the authority, and the control plane's own certificate and key. */
export interface ClientCredential {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** `history`: the mark of the database's history, for commands that are bound to it. */
export function createSiteClient(
  agents: AgentRegistry,
  credential: ClientCredential,
  history: () => Promise<string>,
): SiteClient {
  const dispatchers = new Map<string, Agent>()
  const dispatcherOf = (site: string): Agent => {
    const known = dispatchers.get(site)
    if (known !== undefined) return known
    const made = new Agent({
      connections: CONNECTIONS,
      pipelining: 1,
      connect: {
        ...credential,
        minVersion: 'TLSv1.3',
        timeout: CONNECT_MS,
        checkServerIdentity: (host: string, certificate: PeerCertificate) =>
          checkServerIdentity(host, certificate) ?? strangerAt(site, certificate),
      },
    })
    dispatchers.set(site, made)
    return made
  }

  return {
    async command(site, name, request, options = {}) {
      const agent = agents.at(site)
      const doing = `sending ${name} to ${site}`
      if (agent === null) throw new Fault(SITE_NEVER_SEEN, doing, { site })
      const limit = AbortSignal.timeout(options.timeoutMs ?? ANSWER_MS)
      const signal = options.signal === undefined ? limit : AbortSignal.any([options.signal, limit])
      const { command_address: address } = agent.report
      const bound = BOUND_TO_HISTORY.has(name) ? { [HISTORY_HEADER]: await history() } : {}
      let status: number
      let body: unknown
      try {
        const reply = await send(`https://${address}/internal/v1/commands/${name}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...bound },
          body: JSON.stringify(request),
          dispatcher: dispatcherOf(site),
          signal,
        })
        status = reply.statusCode
        body = parse(await reply.body.text())
      } catch (error) {
        options.signal?.throwIfAborted()
        throw new Fault(SITE_UNREACHABLE, `${doing} at ${address}`, { site, command: name }, error)
      }
      if (status === 200 && answers[name]?.Check(body) === true) {
        return body as CommandAnswer<typeof name>
      }
      if ((status === 409 || status === 503) && refusals.Check(body)) {
        const detail = { site, command: name, refusal: body.code, text: body.text, hint: body.hint }
        const kind = status === 409 ? SITE_REFUSED : SITE_BUSY
        throw new Fault(kind, `${doing}: ${body.code} ${body.text} ${body.hint}`, detail)
      }
      const shown = JSON.stringify(body)?.slice(0, 500)
      throw new Fault(SITE_ANSWER_INVALID, `${doing}: status ${status}, ${shown}`, { site })
    },
    async close() {
      await Promise.all([...dispatchers.values()].map((dispatcher) => dispatcher.destroy()))
    },
  }
}

/** An error unless the certificate is that of an agent of `site`. */
function strangerAt(site: string, certificate: PeerCertificate): Error | undefined {
  const { CN: name } = certificate.subject
  const identity = typeof name === 'string' ? parseCommonName(name) : undefined
  if (identity?.kind === 'agent' && identity.site === site) return undefined
  return new Error(`the certificate is of ${String(name)}, not of an agent of ${site}`)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { Compile } from 'typebox/compile'
import type { Address } from '#base/config.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import {
  BOUND_TO_HISTORY,
  COMMANDS,
  type CommandName,
  HISTORY_HEADER,
} from '#wire/site/commands.ts'
import type { PkiFiles } from './config.ts'
import { asDiskRefusal } from './disk-refusals.ts'

/* Takes the control plane's commands: POST /internal/v1/commands/{name}, mutual TLS, `control:REGION` only.
 *
 *   200  the command's answer
 *   400  not a command, or a body that does not match its schema: nothing was done
 *   403  a certificate of somebody else
 *   409  CommandRefusal: a fault that a repeat cannot cure
 *   413  body too large
 *   503  CommandRefusal: a repeat may succeed
 */

const BODY_BYTES_MAX = 4 * 1024 * 1024
/** A command may wait out a peer's contact (seconds), so the server's own timeouts stay above the caller's. */
const REQUEST_TIMEOUT_MS = 120_000

export const COMMAND_REFUSED = fault({
  code: 'COMMAND_REFUSED',
  retry: 'never',
  text: 'The agent was sent something that is not a command of this version.',
  hint: 'Run the same version of Holdfast on the control plane and on every agent.',
})

export const OTHER_HISTORY = fault({
  code: 'OTHER_HISTORY',
  retry: 'later',
  text: 'The command was sent out of a history of the control plane that is not the one this agent reports to.',
  hint: 'Nothing, usually: the agent learns of a restored control plane with its next report, and the command is repeated.',
})

export type CommandHandler = (name: CommandName, request: unknown) => Promise<unknown>

export interface CommandServer {
  /** The port that was bound. */
  readonly port: number
  close(): Promise<void>
}

const checks = Object.fromEntries(
  Object.entries(COMMANDS).map(([name, schema]) => [name, Compile(schema.request)]),
)

const isCommandName = (name: string): name is CommandName => Object.hasOwn(COMMANDS, name)

export async function serveCommands(options: {
  readonly listen: Address
  readonly pki: PkiFiles
  /** Common name that callers must have. */
  readonly caller: string
  readonly handle: CommandHandler
  /** Names the history that the control plane acts on, as this process has last heard. */
  readonly history: () => string | undefined
  readonly log: Log
}): Promise<CommandServer> {
  const { listen, pki, caller, handle, history, log } = options
  const server = createServer(
    {
      ca: readFileSync(pki.ca),
      cert: readFileSync(pki.cert),
      key: readFileSync(pki.key),
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.3',
      requestTimeout: REQUEST_TIMEOUT_MS,
    },
    (request, response) => {
      answer(request, caller, handle, history).then(
        (result) => send(response, 200, result),
        (thrown: unknown) => {
          const error = asDiskRefusal(thrown, `carrying out ${request.url ?? ''}`)
          const { status, body } = refusalOf(error)
          log[status === 503 ? 'warn' : 'info'](
            { url: request.url, status, err: error },
            'command refused',
          )
          send(response, status, body)
        },
      )
    },
  )
  server.on('tlsClientError', (error) => log.info({ err: error }, 'command connection refused'))
  await listening(server, listen)
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

class Rejected extends Error {
  readonly status: number
  constructor(status: number, text: string) {
    super(text)
    this.status = status
  }
}

async function answer(
  request: IncomingMessage,
  caller: string,
  handle: CommandHandler,
  history: () => string | undefined,
): Promise<unknown> {
  const name = (request.url ?? '').replace(/^\/internal\/v1\/commands\//, '')
  const subject = (request.socket as TLSSocket).getPeerCertificate().subject?.CN
  if (subject !== caller)
    throw new Rejected(403, `certificate of ${String(subject)}, not ${caller}`)
  if (request.method !== 'POST' || !isCommandName(name)) throw new Rejected(400, 'no such command')
  if (BOUND_TO_HISTORY.has(name) && request.headers[HISTORY_HEADER] !== history()) {
    throw new Fault(OTHER_HISTORY, `taking ${name}`)
  }
  const body = parse(await read(request))
  const check = checks[name]
  if (check === undefined || !check.Check(body)) {
    const first = check?.Errors(body)[0]
    throw new Rejected(400, `${name}: ${first?.instancePath ?? ''} ${first?.message ?? 'refused'}`)
  }
  return await handle(name, body)
}

async function read(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes > BODY_BYTES_MAX) throw new Rejected(413, `more than ${BODY_BYTES_MAX} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new Rejected(400, 'the body is not JSON')
  }
}

function refusalOf(error: unknown): { status: number; body: unknown } {
  if (error instanceof Rejected) {
    return {
      status: error.status,
      body: { code: COMMAND_REFUSED.code, text: error.message, hint: COMMAND_REFUSED.hint },
    }
  }
  if (isFault(error)) {
    const { code, hint, retry } = error.kind
    return { status: retry === 'never' ? 409 : 503, body: { code, text: error.message, hint } }
  }
  // Unknown errors are our own mistakes: the control plane may repeat, the log has the stack.
  const text = error instanceof Error ? error.message : String(error)
  return { status: 503, body: { code: 'INTERNAL', text, hint: "See the agent's log." } }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  if (response.destroyed) return
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

export const LISTEN_REFUSED = fault({
  code: 'LISTEN_REFUSED',
  retry: 'later',
  text: 'A port or socket could not be opened.',
  hint: 'Stop the program that uses the address, or configure another one.',
})

function listening(server: Server, listen: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Fault(LISTEN_REFUSED, `listening on ${listen.host}:${listen.port}`, {}, error)),
    )
    server.listen(listen.port, listen.host, () => resolve())
  })
}

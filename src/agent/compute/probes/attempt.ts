import type { Clock } from '#base/clock.ts'
import type { Probe } from '#wire/site/probes.ts'
import type { ServerDefinition, ServerNic } from '#wire/site/servers.ts'
import type { ComputeDriver, GuestNetwork, NetworkAnswer } from '../driver.ts'
import { runInGuest } from './guest-agent.ts'
import { HTTP_BYTES_MAX, httpRequest, parseHttp } from './http-answer.ts'

/* One look at a guest that runs. */

export interface Look {
  readonly ok: boolean
  readonly detail: string
  /** Whole; cut by whoever answers. */
  readonly output: string
}

export interface LookParts {
  readonly driver: ComputeDriver
  readonly clock: Clock
  readonly definition: ServerDefinition
  /** Longest, ms. */
  readonly limitMs: number
}

const look = (ok: boolean, detail: string, output = ''): Look => ({ ok, detail, output })

export async function lookOnce(probe: Probe, parts: LookParts): Promise<Look> {
  switch (probe.kind) {
    case 'boot':
      return probe.marker === undefined ? await addressed(parts) : await marked(probe.marker, parts)
    case 'tcp':
      return await onNetwork(parts, async (network, { port: nic }) => {
        const { port } = probe
        const answer = await network.ask(parts.definition.server, nic, {
          port,
          send: Buffer.alloc(0),
          answerBytesMax: 1,
          limitMs: parts.limitMs,
        })
        return look(answer.kind === 'accepted', wordsOf(answer.kind))
      })
    case 'http':
      return await onNetwork(parts, async (network, nic) => await http(probe, network, nic, parts))
    case 'command':
      return await command(probe.command, parts)
  }
}

async function marked(marker: string, { driver, definition }: LookParts): Promise<Look> {
  const text = await driver.console(definition.server, 'start')
  const line = text.split('\n').find((one) => one.includes(marker))
  if (line === undefined) return look(false, 'the console does not show it yet')
  return look(true, 'the console shows it', line.trimEnd())
}

async function addressed(parts: LookParts): Promise<Look> {
  return await onNetwork(parts, async (network, nic) => {
    const has = await network.addressed(parts.definition.server, nic.port)
    return look(has, has ? `it uses its address ${nic.address}` : 'it does not use its address yet')
  })
}

async function http(
  probe: Extract<Probe, { kind: 'http' }>,
  network: GuestNetwork,
  nic: ServerNic,
  { definition, limitMs }: LookParts,
): Promise<Look> {
  const { port, path, status: wanted, contains } = probe
  const answer = await network.ask(definition.server, nic.port, {
    port,
    send: httpRequest(nic.address, port, path),
    answerBytesMax: HTTP_BYTES_MAX,
    limitMs,
  })
  const parsed = parseHttp(answer.answer)
  if (parsed === undefined) {
    const connected = answer.kind === 'answered' || answer.kind === 'late'
    return look(false, connected ? 'what answered is not HTTP' : wordsOf(answer.kind))
  }
  const { status, body } = parsed
  const text = body.toString()
  const right = wanted === undefined ? status >= 200 && status < 400 : status === wanted
  if (!right) return look(false, `status ${status}`, text)
  if (contains !== undefined && !text.includes(contains)) {
    return look(false, `status ${status}, without the text that is looked for`, text)
  }
  return look(true, `status ${status}`, text)
}

async function command(
  wanted: readonly string[],
  { driver, definition, clock, limitMs }: LookParts,
): Promise<Look> {
  const connection = await driver.guestAgent(definition.server)
  if (connection === undefined) {
    return look(false, 'NO_GUEST_AGENT: the guest has no channel for one; start it anew')
  }
  const run = await runInGuest(connection, wanted, limitMs, clock)
  switch (run.kind) {
    case 'no_agent':
      return look(false, 'NO_GUEST_AGENT: no guest agent answers')
    case 'failed':
      return look(false, run.reason)
    case 'exited':
      return look(run.code === 0, `exit code ${run.code}`, run.output.toString())
  }
}

async function onNetwork(
  { driver, definition }: LookParts,
  work: (network: GuestNetwork, nic: ServerNic) => Promise<Look>,
): Promise<Look> {
  const [nic] = definition.nics
  if (nic === undefined) return look(false, 'the guest has no NIC')
  if (driver.network === null) {
    return look(false, `NO_NETWORK_ACCESS: the driver ${driver.name} has no way into its networks`)
  }
  return await work(driver.network, nic)
}

function wordsOf(kind: NetworkAnswer['kind']): string {
  switch (kind) {
    case 'accepted':
      return 'connection accepted'
    case 'answered':
      return 'answered'
    case 'refused':
      return 'connection refused'
    case 'reset':
      return 'connection broken by the guest'
    case 'silent':
      return 'no answer'
    case 'late':
      return 'connected, but no answer in time'
    case 'no_gateway':
      return 'its network has no gateway to ask from'
    case 'busy':
      return 'too many questions to this guest at once'
    case 'unplugged':
      return 'its NIC is not connected'
  }
}

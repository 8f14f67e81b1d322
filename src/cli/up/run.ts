import { open, readFile, rm, stat } from 'node:fs/promises'
import { rmSync, writeFileSync, renameSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Address, envName, parseAddress } from '#base/config.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import { createLog, type Log } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { openDoor } from '#base/system/door.ts'
import { ensureDirectory, LOCKED, lockFile, writeFileWhole } from '#base/system/files.ts'
import { killAndWait, processesWithArgument, startChild } from '#base/system/process.ts'
import type { CommandContext } from '../context.ts'
import type { Output } from '../output.ts'
import { killGuests } from './guests.ts'
import { pathsUnder, type PartSpec, partFiles, type Paths, REGIONS } from './layout.ts'
import { type Prepared, prepare, type UpRequest } from './prepare.ts'
import { Supervisor, type SupervisorEvent } from './supervisor.ts'
import { usageError } from '../usage.ts'

/* Runs the embedded system until it is told to stop. */

export const LEFTOVER_STAYS = fault({
  code: 'LEFTOVER_STAYS',
  retry: 'later',
  text: 'A process of an earlier run does not end.',
  hint: 'It hangs inside the kernel, usually on a disk that does not answer. Look at that disk first.',
})

export interface UpFlags {
  data: string
  listen?: string
  restart: boolean
  tls?: boolean
  tlsCert?: string
  tlsKey?: string
  allowPlaintext?: boolean
  advertise?: string
  supervised?: boolean
}

/** Runs the system in one directory; settles when it was told to stop and everything has ended. */
export async function up(flags: UpFlags, context: CommandContext, output: Output): Promise<void> {
  const request = readRequest(flags)
  const paths = pathsUnder(resolve(flags.data))
  await ensureDirectory(paths.root)
  const lock = await takeLock(paths)
  const stop = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.once(signal, () => resolve(signal))
    }
    if (flags.supervised === true) process.stdin.once('close', () => resolve('close')).resume()
  })
  try {
    await writeFileWhole(paths.pid, `${process.pid}\n`)
    await clearLeftovers(paths, output)
    const prepared = await prepare(paths, request, context.program, systemClock)
    await supervise(paths, prepared, flags.restart, stop, context, output)
  } finally {
    await rm(paths.pid, { force: true })
    lock.release()
  }
}

async function supervise(
  paths: Paths,
  prepared: Prepared,
  restartSites: boolean,
  stop: Promise<string>,
  context: CommandContext,
  output: Output,
): Promise<void> {
  const log = createUpLog(paths)
  const supervisor = new Supervisor(prepared.parts, {
    clock: systemClock,
    restartSites,
    spawn: (part) =>
      startChild({
        command: part.command,
        cwd: paths.root,
        env: environmentOf(part, context.env),
        errorLog: part.logFile,
      }),
    writePid: (part, pid) => {
      writeFileSync(`${part.pidFile}.new`, `${pid}\n`)
      renameSync(`${part.pidFile}.new`, part.pidFile)
    },
    removePid: (part) => rmSync(part.pidFile, { force: true }),
    killGuests: (site) => killGuests(systemClock, paths, site),
    logTail: (part) => logTail(part.logFile),
    tell: (event) => {
      log.info(event, event.event)
      if (output.json) output.result(event, '')
      else output.say(sentence(event))
    },
  })
  const door = await openDoor(
    paths.door,
    oneAtATime((request) => answer(supervisor, prepared, request)),
  )
  try {
    output.say(
      prepared.firstRun
        ? `setting up ${paths.root} for the first time`
        : `starting ${paths.root} again`,
    )
    const started = supervisor.start()
    const early = await Promise.race([started, stop])
    if (early === undefined) {
      await prepared.finishFirstRun()
      context.streams.out.write(`${JSON.stringify({ event: 'ready', url: prepared.url })}\n`)
      output.say(`ready at ${prepared.url}, administrator in ${paths.credentials}`)
      await stop
    }
    output.say('stopping')
    // A start that was interrupted by the stop has nobody left to tell.
    started.catch((error: unknown) => log.info({ err: error }, 'start interrupted'))
  } finally {
    await supervisor.stop()
    await door.close()
  }
  output.say('stopped')
}

function readRequest(flags: UpFlags): UpRequest {
  let listen: Address | undefined
  if (flags.listen !== undefined) {
    listen = parseAddress(flags.listen)
    if (listen === undefined) {
      throw usageError(
        `--listen ${JSON.stringify(flags.listen)} is not accepted, accepted: HOST:PORT`,
      )
    }
  }
  if ((flags.tlsCert === undefined) !== (flags.tlsKey === undefined)) {
    throw usageError('--tls-cert and --tls-key need each other')
  }
  return {
    listen,
    tls: flags.tls === true,
    tlsFiles:
      flags.tlsCert === undefined || flags.tlsKey === undefined
        ? undefined
        : { cert: resolve(flags.tlsCert), key: resolve(flags.tlsKey) },
    allowPlaintext: flags.allowPlaintext === true,
    advertise: flags.advertise,
  }
}

async function takeLock(paths: Paths): Promise<{ release(): void }> {
  try {
    return lockFile(paths.lock)
  } catch (error) {
    if (!isFault(error, LOCKED)) throw error
    const pid = (await readFile(paths.pid, 'utf8').catch(() => '?')).trim()
    throw new Fault(LOCKED, `\`holdfast up\` already runs on ${paths.root} (pid ${pid})`, {
      path: paths.root,
    })
  }
}

/**
 * Ends what a killed supervisor left. Its children notice by themselves, but may not have finished leaving, and one
 * that hangs would still hold volumes. They are recognised by the path of their configuration on
 * their command line, never by a pid alone.
 */
async function clearLeftovers(paths: Paths, output: Output): Promise<void> {
  for (const plan of REGIONS) {
    for (const name of [plan.control, ...plan.sites.map(({ agent }) => agent)]) {
      const { configFile, pidFile } = partFiles(paths, name)
      for (const facts of await processesWithArgument(configFile)) {
        output.say(`${name}: ending process ${facts.pid} that an earlier run left`)
        if (!(await killAndWait(systemClock, facts, 10_000))) {
          throw new Fault(LEFTOVER_STAYS, `killing process ${facts.pid} (${name})`, { name })
        }
      }
      await rm(pidFile, { force: true })
      await rm(`${pidFile}.new`, { force: true })
    }
  }
}

/** The environment of a part: ours without the variables that would overrule what the supervisor decided. */
function environmentOf(
  part: PartSpec,
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  const decided = new Set(part.optionsDecided.map(envName))
  return Object.fromEntries(Object.entries(env).filter(([name]) => !decided.has(name)))
}

async function answer(
  supervisor: Supervisor,
  prepared: Prepared,
  request: unknown,
): Promise<unknown> {
  const { command, site } = request as { command?: unknown; site?: unknown }
  const name = typeof site === 'string' ? site : ''
  switch (command) {
    case 'status':
      return { url: prepared.url, regions: prepared.regions, parts: supervisor.status() }
    case 'kill':
      return { parts: await supervisor.killSite(name) }
    case 'stop':
      return { parts: await supervisor.stopSite(name) }
    case 'start':
      return { parts: await supervisor.startSite(name) }
    default:
      return { error: `unknown request ${JSON.stringify(command)}` }
  }
}

/** Requests that change parts wait for each other; asking for the status never waits. */
function oneAtATime(
  act: (request: unknown) => Promise<unknown>,
): (request: unknown) => Promise<unknown> {
  let last: Promise<unknown> = Promise.resolve()
  return async (request) => {
    if ((request as { command?: unknown }).command === 'status') return await act(request)
    const turn = last.then(() => act(request))
    last = turn.catch(() => undefined) // the one who asked is told; the next one's turn comes all the same
    return await turn
  }
}

function sentence(event: SupervisorEvent): string {
  switch (event.event) {
    case 'part_started':
      return `${event.part}: started, pid ${event.pid}`
    case 'part_ready':
      return `${event.part}: answers`
    case 'part_died':
      return event.restart_in_ms === null
        ? `${event.part}: ended (${event.how}), stays down`
        : `${event.part}: ended (${event.how}), again in ${event.restart_in_ms} ms`
    case 'part_failed':
      return `${event.part}: failed again and again (${event.how}), given up`
    case 'part_slow':
      return `${event.part}: does not end, sending ${event.signal}`
  }
}

function createUpLog(paths: Paths): Log {
  const file = `${paths.log}/up.log`
  return createLog('up', 'info', {
    write: (line: string) => writeFileSync(file, line, { flag: 'a', mode: 0o600 }),
  })
}

const LOG_TAIL_BYTES = 2_000

async function logTail(file: string): Promise<string> {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0
  if (size === 0) return '(empty)'
  const handle = await open(file)
  try {
    const start = Math.max(0, size - LOG_TAIL_BYTES)
    const { buffer, bytesRead } = await handle.read(
      Buffer.alloc(size - start),
      0,
      size - start,
      start,
    )
    return buffer.subarray(0, bytesRead).toString().trimEnd().split('\n').slice(-10).join('\n')
  } finally {
    await handle.close()
  }
}

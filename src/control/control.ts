import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { formatAddress } from '#base/config.ts'
import { Fault, fault } from '#base/fault.ts'
import { createLog, type Log } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { ensureDirectory, readTextIfPresent } from '#base/system/files.ts'
import { pickPorts } from '#base/system/ports.ts'
import { clientCertificates } from '#control/api/native/certificates.ts'
import type { StateBackup } from '#control/api/native/services.ts'
import { buildApi } from '#control/api/server.ts'
import { bootstrapIdentity } from '#control/identity/bootstrap.ts'
import { createIdentity, type Identity } from '#control/identity/identity.ts'
import { createPasswords, type Passwords } from '#control/identity/passwords.ts'
import { openSecretBox, type SecretBox } from '#control/identity/secret-box.ts'
import { createDrillClock } from '#control/operations/drill-clock.ts'
import { createReconciler } from '#control/operations/reconciler.ts'
import type { CrashPoint } from '#control/operations/runner.ts'
import { seedResources } from '#control/resources/surroundings.ts'
import { backupState } from '#control/store/backup.ts'
import type { Store } from '#control/store/store.ts'
import type { Bootstrap, ControlConfig } from './config.ts'
import { startPlane } from './plane.ts'

/* The composition root of a control plane: the only place that makes its real clock, chance, disk and network.
 *
 * Order of a start: state → witness and agents' port → operations → reconciler → first administrator → public API. Whoever gets
 * an answer from the API can rely on everything behind it. A stop goes the other way, and its last act is the mark in the
 * database that says it was one.
 */

export interface RunningControl {
  /** Where clients reach the public API: no trailing slash. */
  readonly url: string
  close(): Promise<void>
}

export const API_LISTEN = fault({
  code: 'API_LISTEN',
  retry: 'later',
  text: 'The port of the public API could not be opened.',
  hint: 'Stop the program that uses it, or configure another listen address.',
})
export const BOOTSTRAP_INVALID = fault({
  code: 'BOOTSTRAP_INVALID',
  retry: 'never',
  text: 'The file with the first administrator cannot be used; nobody was created.',
  hint: 'Make it with `holdfast init`, or write the members that docs/operating/install.md lists.',
})

const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id'

/** A restart writes the log of the database again, which no running process can do. */
const DISK_FAILED_EXIT = 74

/** Settles when the public API answers. `testing` is for test programs that end the process on purpose. */
export async function startControl(
  config: ControlConfig,
  version = 'development',
  testing: { readonly crashPoint?: CrashPoint } = {},
): Promise<RunningControl> {
  const log = createLog('control', config.logLevel)
  const clock = systemClock
  await ensureDirectory(config.dataDir, 0o700)
  const plane = await startPlane({
    config,
    clock,
    log,
    random: Math.random,
    bootId: readFileSync(BOOT_ID_FILE, 'utf8').trim(),
    crashPoint: testing.crashPoint,
  })
  const { store, agents, sites, witness, operations } = plane
  store.onFailure((error) => {
    log.fatal({ err: error }, 'the disk under the state database failed: stopping')
    process.exit(DISK_FAILED_EXIT)
  })
  const reconciler = createReconciler({
    store,
    clock,
    log,
    agents,
    sites,
    witness,
    siteNames: config.sites,
  })
  const { sites: siteNames, agentSilenceMs } = config
  const drillClock = createDrillClock(
    { store, operations, clock, agents, sites: siteNames, agentSilenceMs },
    log,
  )
  try {
    const nowMs = clock.wallMs()
    await seedResources(store, { region: config.region, sites: config.sites, nowMs })
    const identity = await openIdentity(config, store, log)
    const listen =
      config.listen.port === 0
        ? { ...config.listen, port: await freePort(config.listen.host) }
        : config.listen
    const scheme = config.tls === undefined ? 'http' : 'https'
    const url = config.publicUrl ?? `${scheme}://${formatAddress(listen)}`
    const authority = readFileSync(config.pki.ca, 'utf8')
    const api = buildApi({
      store,
      clock,
      log,
      identity,
      operations,
      agents,
      witness,
      commands: sites,
      scripts: plane.services.scripts,
      region: config.region,
      sites: config.sites,
      destinations: config.regions.map(({ name }) => name),
      mayCopy: plane.services.regions?.mayCopy,
      otherRegions: plane.services.regions,
      agentSilenceMs: config.agentSilenceMs,
      publicUrl: url,
      version,
      sdrs: { absentStatus: config.sdrsAbsentStatus },
      stateBackup: backups(config, store),
      certificates:
        config.pki.caKey === undefined
          ? null
          : clientCertificates(
              { cert: authority, key: readFileSync(config.pki.caKey, 'utf8') },
              clock,
            ),
      authority,
      reports: plane.services.reports,
      tls:
        config.tls === undefined
          ? undefined
          : {
              cert: readFileSync(config.tls.cert, 'utf8'),
              key: readFileSync(config.tls.key, 'utf8'),
            },
    })
    try {
      await api.listen(listen)
    } catch (error) {
      throw new Fault(API_LISTEN, `listening on ${formatAddress(listen)}`, {}, error)
    }
    reconciler.start()
    drillClock.start()
    log.info({ url, region: config.region, version }, 'the control plane answers')
    let closing: Promise<void> | undefined
    return {
      url,
      close() {
        closing ??= (async () => {
          await api.close()
          await reconciler.stop()
          await drillClock.stop()
          await plane.close()
          log.info('the control plane has stopped in order')
        })()
        return closing
      },
    }
  } catch (error) {
    await plane.close()
    throw error
  }
}

/** Links in answers carry the port, so it has to be known before the server listens. */
async function freePort(host: string): Promise<number> {
  const [port] = await pickPorts(host, 1)
  return port ?? 0
}

async function openIdentity(config: ControlConfig, store: Store, log: Log): Promise<Identity> {
  const clock = systemClock
  const passwords = createPasswords()
  const box = await openSecretBox(join(config.dataDir, 'identity.key'))
  await createFirstAdministrator(config, store, passwords, box, log)
  const { tokenLifetimeMs } = config
  return createIdentity({ store, clock, passwords, box, tokenLifetimeMs })
}

async function createFirstAdministrator(
  config: ControlConfig,
  store: Store,
  passwords: Passwords,
  box: SecretBox,
  log: Log,
): Promise<void> {
  const user = await store.db.selectFrom('users').select('id').limit(1).executeTakeFirst()
  if (user !== undefined) return
  const { region, bootstrapFile } = config
  if (bootstrapFile === undefined) {
    log.warn('the database has no user yet, and no bootstrapFile names the first administrator')
    return
  }
  const administrator = await readBootstrap(bootstrapFile)
  const made = await bootstrapIdentity({
    store,
    clock: systemClock,
    passwords,
    box,
    region,
    administrator,
  })
  if (made !== null) log.info({ user: made.user }, 'the first administrator was created')
}

const Text = Type.String({ minLength: 1, maxLength: 255 })
const bootstraps = Compile(
  Type.Object({
    domain: Text,
    user: Text,
    password: Type.String({ minLength: 8, maxLength: 256 }),
    project_id: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    project_name: Text,
    access_key: Text,
    secret_key: Text,
  }),
)

async function readBootstrap(path: string): Promise<Bootstrap> {
  const text = await readTextIfPresent(path)
  if (text === undefined) throw new Fault(BOOTSTRAP_INVALID, `${path} does not exist`)
  let content: unknown
  try {
    content = JSON.parse(text)
  } catch {
    // Without the cause: a parser's message quotes the text, and with it secrets.
    throw new Fault(BOOTSTRAP_INVALID, `${path} is not JSON`)
  }
  if (bootstraps.Check(content)) return content
  const [first] = bootstraps.Errors(content)
  throw new Fault(
    BOOTSTRAP_INVALID,
    `${path}: ${first?.instancePath ?? ''} ${first?.message ?? ''}`,
  )
}

/** Backups asked for over the API: files below the data directory, named by time, kept until somebody removes them. */
function backups({ dataDir }: ControlConfig, store: Store): StateBackup {
  const directory = join(dataDir, 'backups')
  return {
    async run() {
      await ensureDirectory(directory, 0o700)
      const time = new Date(systemClock.wallMs()).toISOString().replaceAll(/[-:]/g, '')
      const file = join(directory, `state-${time}.jsonl`)
      return { file, ...(await backupState(store, file, systemClock)) }
    },
  }
}

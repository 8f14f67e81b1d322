import {
  readServer,
  SERVER_RESOURCE,
  serverFacts,
  updateServer,
} from '#control/resources/servers.ts'
import type { Transaction } from '#control/store/store.ts'
import { decideServer } from '#domain/server.ts'
import type { StepContext, SubmitChild } from '../../operation.ts'
import { startServer } from './servers.ts'

/** Starts a server as a part of another operation. One that is gone, runs already or may not be started is passed over. */
export async function submitStart(
  tx: Transaction,
  ctx: StepContext<unknown>,
  submit: SubmitChild,
  id: string,
): Promise<void> {
  const server = await readServer(tx, id)
  if (server === undefined) return
  const decision = decideServer(await serverFacts(tx, server), { kind: 'start' })
  if (!decision.ok || decision.already) return
  const now = ctx.services.clock.wallMs()
  await updateServer(tx, server.id, { status: decision.status, task: decision.task }, now)
  await submit(startServer, {
    project: server.project,
    resourceType: SERVER_RESOURCE,
    resourceId: server.id,
    input: { already: false },
    entities: { server_id: server.id },
  })
}

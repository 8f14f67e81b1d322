import type { Command } from 'commander'
import { type SdrsJob, showJob } from '#client/sdrs.ts'
import type { CommandContext } from '../context.ts'
import { followJob } from '../jobs.ts'
import { apiAction, apiLeaf } from '../session.ts'

/* `holdfast job`: the durable operations behind the other commands. */

export function jobCommand(command: Command, context: CommandContext): void {
  command.description('look at a job, or wait for its end')
  const show = apiLeaf(context, command, 'show').description('show a job').argument('<job>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const job = await showJob(api, id)
    output.result(job, lines(job))
  })

  const wait = apiLeaf(context, command, 'wait')
    .description('wait until a job has ended; fails when the job failed')
    .argument('<job>')
    .option('--timeout <seconds>', 'longest wait', '300')
  apiAction<{ timeout: string }>(context, wait, async (api, output, flags, id = '') => {
    await followJob(api, output, id, { wait: true, timeout: flags.timeout }, id)
  })
}

function lines(job: SdrsJob): string[] {
  const subJobs = job.entities['sub_jobs']
  const entities = Object.entries(job.entities).filter(([name]) => name !== 'sub_jobs')
  return [
    `${job.job_id}  ${job.job_type}  ${job.status}`,
    `begun ${job.begin_time ?? '-'}, ended ${job.end_time ?? '-'}`,
    ...(job.fail_reason === null ? [] : [`${job.error_code ?? ''} ${job.fail_reason}`]),
    ...entities.map(([name, value]) => `${name}  ${String(value)}`),
    ...(Array.isArray(subJobs)
      ? (subJobs as SdrsJob[]).map((one) => `  ${one.job_id}  ${one.job_type}  ${one.status}`)
      : []),
  ]
}

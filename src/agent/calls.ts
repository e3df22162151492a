// SPDX-License-Identifier: Apache-2.0

import type { Logger } from 'pino'
import { deadlineIn } from '#base'
import { CniError, codes, dispatch, parseNetworkConfig, printError, readAttachment } from '#cni'
import { findOwnPlugin, toCniError, type World } from '#plugins'
import type { Lanes } from './lanes.ts'
import type { Answer, Incoming } from './server.ts'
import type { Outcome } from './spool.ts'

/** The shim waits 110 s; what is left is for the way back. */
const CALL_MS = 100_000
export type CallsOptions = {
  readonly netns?: string | undefined
  readonly logger: Logger
  /** Told of every call; undefined where nobody counts them. */
  readonly observer?: CallObserver | undefined
}

export type CallObserver = { begun(attachment: string): void; ended(call: EndedCall): void }
/** A call that was answered. `code` is 0 or that of its error. */
export type EndedCall = {
  readonly command: string
  readonly type: string
  readonly attachment: string
  readonly code: number
  readonly ms: number
}

/** The lane of an attachment. */
export const laneOf = (key: { network: string; containerId: string; ifName: string; type: string }) =>
  JSON.stringify([key.network, key.containerId, key.ifName, key.type])

/** Answers calls, each in the lane of its attachment. */
export class Calls {
  readonly #world: World
  readonly #lanes: Lanes
  readonly #options: CallsOptions

  constructor(world: World, lanes: Lanes, options: CallsOptions) {
    this.#world = world
    this.#lanes = lanes
    this.#options = options
  }

  async serve(incoming: Pick<Incoming, 'type' | 'env' | 'stdin' | 'netnsFd' | 'signal'>): Promise<Answer> {
    const { type, env, stdin, netnsFd, signal } = incoming
    const plugin = findOwnPlugin(type)
    const begin = performance.now()
    if (plugin === undefined)
      return refuse(new CniError(codes.invalidConfig, `Cannot run "${type}": no plugin of this release`))
    const lane = laneOf({ network: networkOf(stdin), ...readAttachment(env), type: plugin.type })
    const command = env['CNI_COMMAND'] ?? ''
    if (command === 'ADD') this.#options.observer?.begun(lane)
    const answer = await this.#lanes.run(lane, () =>
      dispatch(plugin, { env, stdin, netnsFd }, this.#world, {
        deadline: deadlineIn(CALL_MS),
        signal,
        toCniError,
        ownNetns: this.#options.netns,
      }),
    )
    const ms = performance.now() - begin
    this.#log(incoming, answer, ms)
    this.#options.observer?.ended({ command, type: plugin.type, attachment: lane, code: codeOf(answer), ms })
    return answer
  }

  #log({ type, env }: Pick<Incoming, 'type' | 'env'>, { exitCode, stdout, stderr }: Answer, ms: number): void {
    const command = env['CNI_COMMAND']
    const fields = {
      command,
      type,
      containerId: env['CNI_CONTAINERID'],
      ifName: env['CNI_IFNAME'],
      ms: Math.round(ms * 100) / 100,
    }
    if (exitCode === 0) this.#options.logger[command === 'STATUS' ? 'debug' : 'info'](fields, 'done')
    else this.#options.logger.warn({ ...fields, error: new TextDecoder().decode(stdout), stderr }, 'failed')
  }
}

const codeOf = ({ exitCode, stdout }: Answer): number =>
  exitCode === 0 ? 0 : (JSON.parse(new TextDecoder().decode(stdout)) as { code: number }).code

/** Codes of calls that fail the same way every time: version, environment, JSON, configuration. */
const PERMANENT: readonly number[] = [
  codes.incompatibleVersion,
  codes.unknownContainer,
  codes.invalidEnvironment,
  codes.decode,
  codes.invalidConfig,
]

/** What a DEL that was promised has come to. */
export function outcomeOf({ exitCode, stdout }: Answer): Outcome {
  if (exitCode === 0) return 'done'
  const error = JSON.parse(new TextDecoder().decode(stdout)) as { code: number; msg: string }
  return PERMANENT.includes(error.code) ? { never: error } : 'later'
}

const refuse = (error: CniError): Answer => ({ exitCode: 1, stdout: printError(error, '1.1.0'), stderr: '' })

/** The network's name for the lane alone; what is no configuration gets its error in `dispatch`. */
export function networkOf(stdin: Uint8Array): string {
  try {
    const { name } = parseNetworkConfig(stdin)
    return typeof name === 'string' ? name : ''
  } catch {
    return ''
  }
}

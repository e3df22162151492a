// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import { deadlineIn } from '#base'
import {
  type Attachment,
  CniError,
  codes,
  findNetwork,
  type JsonObject,
  type NetworkList,
  parseJsonObject,
  type Runtime,
  splitPath,
} from '#cni'

/** What one line on the command line means. */
export type Invocation = { readonly list: NetworkList; readonly attachment: Attachment; readonly runtime: Runtime }

export type Flags = {
  readonly ifname?: string | undefined
  readonly cacheDirectory: string
  readonly timeoutSeconds: number
}

type Env = Readonly<Record<string, string>>

/** Reads configuration and environment as upstream's cnitool does. `warn` gets what could not be read on the way. */
export async function prepare(
  network: string,
  netns: string,
  flags: Flags,
  env: Env,
  signal: AbortSignal,
  warn: (text: string) => void,
): Promise<Invocation> {
  const { list, faults } = await findNetwork(env['NETCONFPATH'] || '/etc/cni/net.d', network)
  for (const fault of faults) warn(`Warning: ${describe(fault)}\n`)
  const absolute = resolve(netns)
  return {
    list,
    attachment: {
      containerId: containerIdOf(absolute),
      ifName: flags.ifname || env['CNI_IFNAME'] || 'eth0',
      netns: absolute,
      args: readArgs(env['CNI_ARGS'] ?? ''),
      capabilityArgs: readCapabilityArgs(env['CAP_ARGS'] ?? ''),
    },
    runtime: {
      path: splitPath(env['CNI_PATH'] ?? ''),
      env,
      cacheDirectory: flags.cacheDirectory,
      deadline: deadlineIn(flags.timeoutSeconds * 1000),
      signal,
      onStderr: warn,
    },
  }
}

/** The message of an error, with its details, in one line. */
export const describe = ({ message, details }: CniError): string =>
  details === undefined || details === '' ? message : `${message}; ${details}`

/** Upstream's id for a namespace that is no container: the same path gives the same id, so that `del` finds what `add` made. */
export function containerIdOf(netns: string): string {
  return `cnitool-${createHash('sha512').update(netns).digest('hex').slice(0, 20)}`
}

function readArgs(text: string): [string, string][] {
  if (text === '') return []
  return text.split(';').map(pair => {
    const [key, value, ...rest] = pair.split('=')
    if (!key || !value || rest.length > 0)
      throw new CniError(codes.invalidEnvironment, `invalid CNI_ARGS pair "${pair}"`, {
        details: 'want KEY=VALUE;KEY=VALUE',
      })
    return [key, value]
  })
}

const readCapabilityArgs = (text: string): JsonObject =>
  text === '' ? {} : parseJsonObject(new TextEncoder().encode(text), 'CAP_ARGS')

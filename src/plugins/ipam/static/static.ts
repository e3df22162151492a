// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix } from '#base'
import { type Call, CniError, codes, type Plugin, type Result } from '#cni'
import type { World } from '../../world.ts'
import { isTold, readConfig } from './config.ts'

/** Addresses as the configuration, or the runtime, names them. Nothing is reserved: who gives one twice has it twice. */
export const staticIpam: Plugin<World> = {
  type: 'static',
  needsNetns: false,
  add,
  del: async () => {},
  check,
  status,
  gc: async () => {},
}

async function add(call: Call): Promise<Result> {
  const { addresses, ...rest } = readConfig(call)
  return {
    ips: addresses.map(({ address, gateway }) => ({
      address: formatPrefix(address),
      ...(gateway === undefined ? {} : { gateway: formatIp(gateway) }),
    })),
    ...rest,
  }
}

async function check(call: Call): Promise<void> {
  const { addresses } = readConfig(call)
  if (call.prevResult === undefined) throw new CniError(codes.invalidConfig, 'Required prevResult missing')
  const told = call.prevResult.ips ?? []
  const missing = addresses.find(each => !told.some(ip => isTold(each, ip)))
  if (missing === undefined) return
  const gateway = missing.gateway === undefined ? '' : ` with gateway ${formatIp(missing.gateway)}`
  throw new CniError(
    codes.checkFailed,
    `static: Failed to match addr ${formatPrefix(missing.address)} on interface ${call.ifName}`,
    { details: `prevResult has no such address${gateway}: the configuration was changed after ADD` },
  )
}

/** Addresses may come with the attachment; what is there already has to be valid. */
async function status(call: Call): Promise<void> {
  readConfig({ ...call, args: '' })
}

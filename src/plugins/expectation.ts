// SPDX-License-Identifier: Apache-2.0

import { type Call, CniError, codes, type Result } from '#cni'
import { isMtuTuned } from './upstream.ts'

type Interfaces = NonNullable<Result['interfaces']>

/**
 * What CHECK compares with: the result that the runtime hands in, with the MTUs that only our own ADD told (results before
 * 1.1.0 have none), and without that of an interface to which upstream's tuning gave another.
 * @param own the result of our ADD as the journal has it; empty: it has none
 */
export function expectedResult(call: Call, prevResult: Result, own: string): Result {
  const { interfaces } = prevResult
  if (interfaces === undefined) return prevResult
  const told = own === '' ? [] : ((JSON.parse(own) as Result).interfaces ?? [])
  const isTuned = isMtuTuned(call)
  return {
    ...prevResult,
    interfaces: interfaces.map(({ mtu: given, ...each }) => {
      const isOwn = each.name === call.ifName && each.sandbox === call.netns
      const mtu = given || told.find(({ name, sandbox }) => name === each.name && sandbox === each.sandbox)?.mtu
      return !mtu || (isOwn && isTuned) ? each : { ...each, mtu }
    }),
  }
}

/**
 * The container's interface in a result, and where it stands there.
 * @throws {CniError} of CHECK, where the result knows no such interface or another sandbox
 */
export function findPod(
  call: Call,
  { interfaces = [] }: Result,
  needed: boolean,
): { pod: Interfaces[number] | undefined; podIndex: number } {
  const podIndex = interfaces.findIndex(({ name, sandbox }) => name === call.ifName && (sandbox ?? '') !== '')
  const pod = interfaces[podIndex]
  if (pod === undefined && needed)
    throw new CniError(codes.checkFailed, `Cannot find interface ${call.ifName} in prevResult`)
  if (pod !== undefined && pod.sandbox !== call.netns)
    throw new CniError(
      codes.checkFailed,
      `Sandbox in prevResult ${pod.sandbox} doesn't match configured netns ${call.netns}`,
    )
  return { pod, podIndex }
}

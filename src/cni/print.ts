// SPDX-License-Identifier: Apache-2.0

import { encodeResult } from './convert.ts'
import type { CniError } from './error.ts'
import { formatJson, indentJson } from './json.ts'
import type { Result } from './result.ts'
import { newestVersion, supportedVersions, type Version } from './versions.ts'

// Everything here is laid out as the reference library prints it: people and scripts read it.

/** The answer to ADD. */
export const printResult = (result: Result, version: Version): Uint8Array =>
  bytes(indentJson(encodeResult(result, version)))

/**
 * The answer of a call that failed, in the version of its configuration.
 *
 * The reference library leaves `cniVersion` out; the specification has it in every version.
 */
export const printError = (error: CniError, version: string): Uint8Array =>
  bytes(indentJson({ cniVersion: version, code: error.code, msg: error.message, details: error.details || undefined }))

/** The answer to VERSION. */
export const printVersions = (): Uint8Array =>
  bytes(`${formatJson({ cniVersion: newestVersion, supportedVersions })}\n`)

const bytes = (text: string) => new TextEncoder().encode(text)

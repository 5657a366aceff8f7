// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// A smart wallet as small as can be (ERC-1271, one owner), to test payers that are contracts.
contract TestWallet is IERC1271 {
    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    /// Takes the owner's 65 bytes as they are, or behind one zero byte: real wallets wrap theirs
    /// too, and payers of that kind reach only the `bytes signature` calls of a token.
    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        bytes calldata inner = signature.length == 66 && signature[0] == 0 ? signature[1:] : signature;
        bool valid = SignatureChecker.isValidSignatureNowCalldata(owner, hash, inner);
        return valid ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// Puts a TestWallet at an address known beforehand, for payers not deployed yet (ERC-6492).
contract TestWalletFactory {
    /// Creates the wallet of `owner` and `salt` unless it is there already.
    function create(address owner, bytes32 salt) external returns (address wallet) {
        wallet = walletOf(owner, salt);
        if (wallet.code.length == 0) new TestWallet{salt: salt}(owner);
    }

    /// Where the wallet of `owner` and `salt` is or will be (EIP-1014).
    function walletOf(address owner, bytes32 salt) public view returns (address) {
        bytes32 code = keccak256(abi.encodePacked(type(TestWallet).creationCode, abi.encode(owner)));
        return address(uint160(uint256(keccak256(abi.encodePacked(bytes1(0xff), address(this), salt, code)))));
    }
}
